"""From the model section of a config to a model: networks, likelihoods, posteriors and priors by name."""

from collections.abc import Mapping
from typing import Any

from vae_jax.build.registry import choose_or_import, custom_errors, make_part
from vae_jax.config import Config, ModelConfig
from vae_jax.data import Dataset, ImageKind
from vae_jax.errors import UserError
from vae_jax.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianPerPixel,
    Poisson,
)
from vae_jax.models import VAE, HierarchicalPosterior, HierarchicalPrior, refusal
from vae_jax.networks import MLP, ConvNet, ResNet
from vae_jax.posteriors import IAF, DiagonalGaussian, FullGaussian, PlanarFlow, PointMass
from vae_jax.priors import ConditionalGaussianPrior, GaussianMixture, RealNVP, StandardNormal, VampPrior
from vae_jax.settings import read_part

ImageShape = tuple[int, ...]

NETWORKS = {"mlp": MLP, "conv": ConvNet, "resnet": ResNet}
LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian_per_pixel": GaussianPerPixel,
    "discretized_logistic": DiscretizedLogistic,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
    "poisson": Poisson,
}
POSTERIORS = {
    "diagonal_gaussian": DiagonalGaussian,
    "full_gaussian": FullGaussian,
    "planar": PlanarFlow,
    "iaf": IAF,
    "hierarchical": HierarchicalPosterior,
    "point_mass": PointMass,
}
PRIORS = {
    "standard_normal": StandardNormal,
    "mixture": GaussianMixture,
    "vampprior": VampPrior,
    "realnvp": RealNVP,
    "hierarchical": HierarchicalPrior,
    "conditional_gaussian": ConditionalGaussianPrior,
}
MODELS = {"vae": VAE}
OF_MODEL: Mapping[str, Mapping[str, Any]] = {
    "kind": MODELS,
    "network": NETWORKS,
    "likelihood": LIKELIHOODS,
    "posterior": POSTERIORS,
    "prior": PRIORS,
}


def build_model(config: ModelConfig, image_shape: ImageShape, max_value: int = 255, context_size: int = 0) -> VAE:
    """The model for images of this shape.

    Args:
        config: Which parts, and how large.
        image_shape: Height, width, channels; or the length of a row.
        max_value: Largest value of a pixel, for likelihoods of grey levels.
        context_size: Classes of the data, or numbers in its contexts; used if `config.conditional`.

    Raises:
        UserError: If a name is unknown, parts don't fit each other, or a custom part can't be built.
    """
    rows = len(image_shape) == 1
    height, width, channels = (1, *image_shape, 1) if rows else image_shape
    shape = height, width, channels
    given: dict[str, Any] = {"latents": config.latents, "levels": max_value + 1, "image_shape": shape}

    def part(field: str) -> Any:
        return make_part(f"model.{field}", getattr(config, field), OF_MODEL[field], **given)

    names = names_of_parts(config)
    with custom_errors(names):
        likelihood = part("likelihood")
        given["outputs"] = (height, width, likelihood.outputs_per_pixel(channels))
        network = part("network")
        given["latents"] = network.latent_shape
        for field in ("posterior", "prior") if isinstance(network.latent_shape, tuple) else ():
            name = names[f"model.{field}"]
            if not getattr(choose_or_import(f"model.{field}", name, OF_MODEL[field]), "takes_maps", False):
                raise UserError(
                    f"model.{field} '{name}' is one of vectors, but with this network z is a map of "
                    f"{'×'.join(map(str, network.latent_shape))} numbers; use diagonal_gaussian with standard_normal "
                    "or vampprior, or set --config.model.network.spatial=False"
                )
        posterior, prior = part("posterior"), part("prior")
        given["context_size"] = context_size if config.conditional else 0
        if reason := refusal(posterior, prior, given["context_size"]):
            raise UserError(reason)
        given |= {"encoder": network.encoder(), "decoder": network.decoder(), "rows": rows}
        given |= {"posterior": posterior, "prior": prior, "likelihood": likelihood}
        return part("kind")


def names_of_parts(config: ModelConfig) -> dict[str, str]:
    """Config fields of the parts of a model, with their names."""
    return {f"model.{field}": read_part(f"model.{field}", getattr(config, field)).name for field in OF_MODEL}


def build_model_for(config: Config, data: Dataset | ImageKind) -> VAE:
    """The model of a run for its data, or for images of this kind."""
    kind = data.kind if isinstance(data, Dataset) else data
    # Pixels that are binarized before training have two levels.
    max_value = 1 if config.data.binarization in ("fixed", "threshold") else kind.max_value
    return build_model(config.model, kind.image_shape, max_value, kind.context_size)
