"""Why a trained model is as good, or as blurry, as it is: every measurement of `evaluation` in one answer."""

from vae_jax.diagnosis.run import STAGES, Diagnosis, diagnose
from vae_jax.diagnosis.subject import Subject
from vae_jax.diagnosis.summary import advice, sentences, table
