"""Randomness is a function of (seed, stream, step), and no two of them share their numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.keys import Stream, stream_key

ROOT = jax.random.key(0)


def test_streams_and_steps_have_keys_of_their_own() -> None:
    keys = [
        stream_key(jax.random.key(seed), stream, step) for seed in (0, 1) for stream in Stream for step in (0, 1, 7)
    ]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)


def test_numbers_of_the_streams_stay_as_they_are() -> None:
    # They are part of a run's file format: another number would continue old runs with other noise.
    assert {stream.name: stream.value for stream in Stream if stream < 8} == {
        "PARAMETERS": 0,
        "DATA_ORDER": 1,
        "BINARIZATION": 2,
        "POSTERIOR_NOISE": 3,
        "EVALUATION": 4,
        "SAMPLES": 5,
        "SPLIT": 6,
        "FIXED_BINARIZATION": 7,
    }


def test_step_may_be_traced() -> None:
    inside = jax.jit(lambda step: jax.random.key_data(stream_key(ROOT, Stream.SAMPLES, step)))(jnp.int32(5))
    np.testing.assert_array_equal(inside, jax.random.key_data(stream_key(ROOT, Stream.SAMPLES, 5)))
