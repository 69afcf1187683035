"""The point mass gives a point and no number that could pass for a density."""

import jax
import numpy as np

from vae_jax.posteriors import PointMass


def test_every_sample_is_the_point() -> None:
    posterior, features = PointMass(3), jax.random.normal(jax.random.key(0), (2, 5))
    point, variables = posterior.init_with_output(jax.random.key(1), features)
    head = variables["params"]["point"]
    np.testing.assert_allclose(point, features @ head["kernel"] + head["bias"], rtol=1e-5)
    z, log_prob = posterior.transform(point, jax.random.normal(jax.random.key(2), (4, 2, posterior.noise_size)))
    np.testing.assert_array_equal(z, np.broadcast_to(point, (4, 2, 3)))
    assert log_prob is None and not posterior.has_density
    np.testing.assert_array_equal(posterior.mean(point), point)
