"""Measuring a trained model: arrays and pure functions in, numbers with their errors out."""

from vae_jax.evaluation.annealed import (
    AnnealedEstimate,
    Schedule,
    make_annealed_estimate,
    make_pilot,
    sigmoid_temperatures,
    simulate,
)
from vae_jax.evaluation.batches import has_missing, map_images, sum_over_samples, values_per_example
from vae_jax.evaluation.bound import Watched, make_bound
from vae_jax.evaluation.features import Features, as_maps, frechet_distance, nearest_images, random_convolutions
from vae_jax.evaluation.gaps import Bound, Gaps, make_gaps
from vae_jax.evaluation.importance import ImportanceEstimate, estimate_images, make_importance_estimate, samples_at_once
from vae_jax.evaluation.latents import (
    AggregateEstimate,
    LatentTerms,
    active_units,
    aggregate_terms,
    label_accuracy,
    make_latent_terms,
)
from vae_jax.evaluation.noise_fit import RescaledEstimate, best_log_factor, make_rescaled_estimate
from vae_jax.evaluation.spectrum import Spectrum, radial_spectrum
from vae_jax.evaluation.summary import evaluation_text, summarize, summarize_replicas
