"""The evidence lower bound in both of its forms (Kingma & Welling 2014)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import draw_joint, elbo_terms
from vae_jax.settings import setting
from vae_jax.shapes import Count, PerSample, Scalar

GRADIENTS = ("reparameterized", "score_function")


@dataclasses.dataclass(frozen=True)
class Elbo:
    """Minus the bound.

    Attributes:
        num_samples: Samples of z per image (L in the paper).
        analytic_kl: Whether to use the closed form of the KL, if the model has one.
        gradient: `reparameterized` (through z) or `score_function` (the general estimator, for comparison: its
            variance is why the reparameterization matters).
    """

    num_samples: int = setting(1, "of z for each image and step (L)", minimum=1)
    analytic_kl: bool = setting(True, "the KL in closed form (AEVB eq. 10), else by Monte Carlo (eq. 6)")
    gradient: str = setting("reparameterized", "of the expectation", choices=GRADIENTS)

    over_images = True

    @property
    def needs(self) -> tuple[str, ...]:
        """See `Objective`."""
        return ("density", "reparameterized" if self.gradient == "reparameterized" else "density_anywhere")

    def penalty(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """What stands in place of the KL: here its mean over the batch, in nats.

        Args:
            kl: By latent dimensions if the divergence is a sum over them; otherwise in one group.
            step: Steps taken so far.
        """
        return jnp.mean(jnp.sum(kl, axis=-1))

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        q = model.encode(variables, batch, train=True)
        joint = draw_joint(model, variables, batch, key, self.num_samples, q)
        if self.gradient == "score_function":
            joint = model.joint(variables, batch, q, z=jax.lax.stop_gradient(joint.z), train=True)
        terms = elbo_terms(joint, self.analytic_kl)
        groups = joint.kl if self.analytic_kl else None
        has_closed_form = groups is not None
        if groups is None:
            groups = jnp.mean(joint.log_posterior - joint.log_prior, axis=0)[:, None]
        cost = self.penalty(groups, step)
        surrogate = cost - jnp.mean(terms.reconstruction)
        if self.gradient == "score_function":
            # The value of this term is zero; its gradient is that of the expectation with respect to q.
            learning_signal = joint.log_likelihood
            if not has_closed_form:
                # The KL is an expectation under q too, weighted by the derivative of the penalty.
                price = len(groups) * jax.grad(self.penalty)(groups, step)[:, 0]
                learning_signal -= price * (joint.log_posterior - joint.log_prior)
            surrogate -= score_function_term(learning_signal, joint.log_posterior)
        return Loss({MODEL: surrogate}, terms, joint.state)


def score_function_term(learning_signal: PerSample, log_posterior: PerSample) -> Scalar:
    """A scalar of value zero whose gradient is the score-function estimate of an expectation's gradient.

    `grad E_q[f(z)] = E_q[(f(z) - b) grad log q(z|x)]`. The baseline b of a sample is the mean of f over all other
    samples and images. It doesn't depend on the sample, so it adds no bias.

    Args:
        learning_signal: f at each sample, in nats.
        log_posterior: log q(z|x) at the same samples, without a gradient through z.

    Returns:
        The term, averaged over samples and images.

    Source:
        Williams 1992; Mnih & Gregor, arXiv 1402.0030; leave-one-out baseline: Kool et al. 2019.
    """
    signal = jax.lax.stop_gradient(learning_signal)
    others = max(signal.size - 1, 1)
    baseline = (jnp.sum(signal) - signal) / others
    return jnp.mean((signal - baseline) * (log_posterior - jax.lax.stop_gradient(log_posterior)))
