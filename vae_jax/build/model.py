"""From the model section of a config to a model: networks, likelihoods, posteriors and priors by name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.build.registry import choose, choose_or_import, custom_errors, make
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
)
from vae_jax.models import VAE, HierarchicalPosterior, HierarchicalPrior, refusal
from vae_jax.networks import UPSAMPLING, ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, ResNetDecoder, ResNetEncoder
from vae_jax.posteriors import IAF, DiagonalGaussian, FullGaussian, PlanarFlow, PointMass
from vae_jax.priors import GaussianMixture, RealNVP, StandardNormal, VampPrior

ImageShape = tuple[int, int, int]

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "gelu": nn.gelu, "silu": nn.silu}
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def _network_options(model: ModelConfig) -> dict[str, Any]:
    return {
        "activation": choose_or_import("model.activation", model.activation, ACTIVATIONS),
        "dtype": choose("model.dtype", model.dtype, DTYPES),
    }


def _mlp(model: ModelConfig, image_shape: ImageShape) -> tuple[nn.Module, nn.Module]:
    options = _network_options(model)
    return MLPEncoder(model.hidden, **options), MLPDecoder(model.hidden[::-1], image_shape, **options)


def _convolutional(
    encoder: type[nn.Module], decoder: type[nn.Module], model: ModelConfig, image_shape: ImageShape
) -> tuple[nn.Module, nn.Module]:
    options = _network_options(model)
    upsampling = choose("model.upsampling", model.upsampling, UPSAMPLING)
    if not model.hidden:
        raise UserError(f"model.network '{model.network}' needs stages; set e.g. --config.model.hidden='(32, 64)'")
    return (
        encoder(hidden=model.hidden, **options),
        decoder(hidden=model.hidden[::-1], image_shape=image_shape, upsampling=upsampling, **options),
    )


# Arguments: the config, and height, width and numbers per pixel of the decoder's output.
NETWORKS: Mapping[str, Callable[[ModelConfig, ImageShape], tuple[nn.Module, nn.Module]]] = {
    "mlp": _mlp,
    "conv": functools.partial(_convolutional, ConvEncoder, ConvDecoder),
    "resnet": functools.partial(_convolutional, ResNetEncoder, ResNetDecoder),
}
# Arguments: the config, the shape of the images and the number of grey levels.
LIKELIHOODS: Mapping[str, Callable[[ModelConfig, ImageShape, int], nn.Module]] = {
    "bernoulli": lambda model, shape, levels: Bernoulli(),
    "continuous_bernoulli": lambda model, shape, levels: ContinuousBernoulli(),
    "gaussian": lambda model, shape, levels: Gaussian(model.likelihood_stddev),
    "gaussian_learned": lambda model, shape, levels: Gaussian(model.likelihood_stddev, learned=True),
    "gaussian_per_pixel": lambda model, shape, levels: GaussianPerPixel(),
    "discretized_logistic": lambda model, shape, levels: DiscretizedLogistic(levels),
    "discretized_logistic_mixture": lambda model, shape, levels: DiscretizedLogisticMixture(
        levels, model.likelihood_components
    ),
}
POSTERIORS: Mapping[str, Callable[[ModelConfig], nn.Module]] = {
    "diagonal_gaussian": lambda model: DiagonalGaussian(model.latents),
    "full_gaussian": lambda model: FullGaussian(model.latents),
    "planar": lambda model: PlanarFlow(model.latents, model.posterior_flows),
    "iaf": lambda model: IAF(model.latents, model.posterior_flows, model.posterior_hidden),
    "hierarchical": lambda model: HierarchicalPosterior(model.latents, model.upper_latents, model.upper_hidden),
    "point_mass": lambda model: PointMass(model.latents),
}
# Arguments: the config and the shape of the images.
PRIORS: Mapping[str, Callable[[ModelConfig, ImageShape], nn.Module]] = {
    "standard_normal": lambda model, shape: StandardNormal(model.latents),
    "mixture": lambda model, shape: GaussianMixture(model.latents, model.prior_components),
    "vampprior": lambda model, shape: VampPrior(model.latents, shape, model.prior_components),
    "realnvp": lambda model, shape: RealNVP(model.latents, model.prior_flows, model.prior_hidden),
    "hierarchical": lambda model, shape: HierarchicalPrior(
        model.latents, model.upper_latents, model.upper_hidden[::-1]
    ),
}


def part_names(model: ModelConfig) -> dict[str, str]:
    """Config fields of the model whose value names a part, with their values."""
    fields = ("network", "activation", "likelihood", "posterior", "prior")
    return {f"model.{field}": getattr(model, field) for field in fields}


def build_model(config: ModelConfig, image_shape: ImageShape, max_value: int = 255, num_classes: int = 0) -> VAE:
    """The model for images of this shape.

    Args:
        config: Which parts, and how large.
        image_shape: Height, width, channels.
        max_value: Largest value of a pixel, for likelihoods of grey levels.
        num_classes: Classes of the data; used if `config.conditional`.

    Raises:
        UserError: If a name is unknown, parts don't fit each other, or a custom part can't be built.
    """
    height, width, channels = image_shape
    with custom_errors(part_names(config)):
        likelihood: Any = make("model.likelihood", config.likelihood, LIKELIHOODS, config, image_shape, max_value + 1)
        posterior = make("model.posterior", config.posterior, POSTERIORS, config)
        prior = make("model.prior", config.prior, PRIORS, config, image_shape)
        outputs = (height, width, likelihood.outputs_per_pixel(channels))
        encoder, decoder = make("model.network", config.network, NETWORKS, config, outputs)
        classes = num_classes if config.conditional else 0
        reason = refusal(posterior, prior, classes)
    if reason is not None:
        raise UserError(reason)
    return VAE(encoder, posterior, prior, decoder, likelihood, classes)


def build_model_for(config: Config, data: Dataset | ImageKind) -> VAE:
    """The model of a run for its data, or for images of this kind."""
    kind = data.kind if isinstance(data, Dataset) else data
    # Pixels that are binarized before training have two levels.
    max_value = 1 if config.data.binarization in ("fixed", "threshold") else kind.max_value
    return build_model(config.model, kind.image_shape, max_value, kind.num_classes)
