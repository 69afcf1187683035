"""The project's own draws: the hash against published answers and JAX, the distributions against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.random import threefry_2x32

from vae_jax.noise import normal_per_image, standard_normal, threefry, uniform_16bit

ROOT = jax.random.key(0)


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_hash_gives_the_published_answers(
    key: tuple[int, int], counter: tuple[int, int], answer: tuple[int, int]
) -> None:
    # The answers published with Random123, the authors' own library, for 20 rounds.
    words = threefry((jnp.uint32(key[0]), jnp.uint32(key[1])), (jnp.uint32(counter[0]), jnp.uint32(counter[1])))
    assert tuple(int(word) for word in words) == answer


@pytest.mark.long
@pytest.mark.parametrize("columns", [1, 3, 4, 7, 784])
def test_draws_of_16_bits_are_uniform_and_independent_between_columns(columns: int) -> None:
    draws = np.asarray(uniform_16bit(ROOT, 2000, columns))
    assert draws.shape == (2000, columns)
    assert draws.min() >= 0
    assert draws.max() < 2**16
    counts = np.bincount(draws.ravel() >> 10, minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    if columns > 1:
        correlations = np.corrcoef(draws[:, :7].T)[np.triu_indices(min(columns, 7), 1)]
        assert np.abs(correlations).max() < 4.5 / np.sqrt(2000)


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_normal_noise_is_normal_and_independent_between_components(size: int) -> None:
    noise = np.asarray(standard_normal(ROOT, (3, 4000, size)), np.float64)
    assert noise.shape == (3, 4000, size)
    assert scipy.stats.kstest(noise.ravel(), scipy.stats.norm.cdf).pvalue > 0.001
    assert scipy.stats.kurtosistest(noise.ravel()).pvalue > 0.001
    if size > 1:
        correlations = np.corrcoef(noise.reshape(-1, size).T)[np.triu_indices(size, 1)]
        assert np.abs(correlations).max() < 5 / np.sqrt(12000)


def test_quantiles_are_those_of_scipy() -> None:
    noise = np.asarray(standard_normal(ROOT, (1, 1000, 2)), np.float64)[0]
    rows = jnp.arange(1000, dtype=jnp.uint32)
    words = threefry_2x32(jax.random.bits(ROOT, (2,)), jnp.concatenate([rows, jnp.zeros_like(rows)]))
    upper = np.asarray(words, np.uint64).reshape(2, 1000).T >> 9
    np.testing.assert_allclose(noise, scipy.stats.norm.ppf((upper + 0.5) / 2**23), rtol=2e-6, atol=1e-7)


@pytest.mark.long
def test_noise_of_an_image_and_sample_does_not_depend_on_its_company() -> None:
    whole = normal_per_image(ROOT, jnp.arange(6), jnp.arange(4), 3)
    part = normal_per_image(ROOT, jnp.array([5, 2]), jnp.array([3, 0]), 3)
    assert whole.shape == (4, 6, 3)
    np.testing.assert_array_equal(part, whole[jnp.array([3, 0])][:, jnp.array([5, 2])])


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_implementation_of_keys_is_accepted(implementation: str) -> None:
    keys = [jax.random.fold_in(jax.random.key(0, impl=implementation), step) for step in range(50)]
    noise = np.stack([standard_normal(key, (4, 5)) for key in keys])
    assert len(np.unique(noise)) == noise.size


def test_checker_sees_a_key_that_is_used_twice() -> None:
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        key = jax.random.key(0)
        standard_normal(key, (2, 3))
        jax.random.normal(key, (2, 3))
