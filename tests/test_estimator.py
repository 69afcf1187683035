from sklearn.utils.estimator_checks import parametrize_with_checks
from vae_jax import VAETransformer

@parametrize_with_checks([VAETransformer(), VAETransformer(n_components=2, hidden=(8,), max_iter=3, objective="iwae", num_samples=3, posterior="full_gaussian", prior="mixture", options={"model.prior_components": 3})])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
