"""The scikit-learn estimator: scikit-learn's own checks, and probabilistic PCA as the answer."""

import inspect
import io
import logging
import pickle
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.datasets
from linear_gaussian import LinearGaussian
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vae_jax.errors import UserError
from vae_jax.estimation.compiled import batch_order
from vae_jax.estimator import VAETransformer

OTHER_PARTS = {
    "objective": "iwae(num_samples=3)",
    "posterior": "full_gaussian",
    "options": {"train.ema_decay": 0.9, "train.clip_norm": 1.0},
}


def tiny(n_components: int = 2, **parameters: Any) -> VAETransformer:
    values = {
        "network": "mlp(hidden=(8,))",
        "max_iter": 2,
        "batch_size": 32,
        "n_likelihood_samples": 10,
        "random_state": 0,
    }
    return VAETransformer(n_components, **values | parameters)


def linear_gaussian(num_rows: int, latents: int = 3) -> np.ndarray:
    truth = LinearGaussian.draw((1, 8, 1), latents, seed=3, variance=0.05)
    return truth.sample(num_rows).reshape(num_rows, -1)


def digits() -> tuple[np.ndarray, np.ndarray]:
    return sklearn.datasets.load_digits(return_X_y=True)


@pytest.mark.long
@parametrize_with_checks([VAETransformer(max_iter=5)])
def test_scikit_learns_checks(estimator: VAETransformer, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def linear() -> tuple[VAETransformer, np.ndarray, PCA]:
    """A linear model with a Gaussian posterior of full covariance is probabilistic PCA; in units far from 1."""
    X = 40.0 * linear_gaussian(3000) + 1000.0
    shared = {"network": "mlp(hidden=())", "posterior": "full_gaussian", "batch_size": 100, "n_likelihood_samples": 20}
    # A learning rate that ends at 0, so that the last batches leave no jitter behind.
    schedule = {"learning_rate": 0.02, "max_iter": 150, "options": {"train.schedule": "cosine"}}
    return VAETransformer(3, random_state=0, **shared, **schedule).fit(X[:2000]), X[2000:], PCA(3).fit(X[:2000])


@pytest.mark.long
def test_scores_are_those_of_probabilistic_pca(linear: tuple[VAETransformer, np.ndarray, PCA]) -> None:
    vae, X, pca = linear
    ours, theirs = vae.score_samples(X), pca.score_samples(X)
    # In nats, where rows are told apart by two nats and more.
    assert np.std(theirs) > 1.5
    assert abs(np.mean(ours - theirs)) < 0.01
    assert np.max(np.abs(ours - theirs)) < 0.3
    assert vae.score(X) == pytest.approx(np.mean(ours))


@pytest.mark.long
def test_latents_span_what_principal_components_do(linear: tuple[VAETransformer, np.ndarray, PCA]) -> None:
    vae, X, pca = linear
    ours, theirs = vae.transform(X), pca.transform(X)
    predicted = ours @ np.linalg.lstsq(ours - ours.mean(0), theirs, rcond=None)[0]
    residual = (theirs - predicted) - (theirs - predicted).mean(0)
    assert np.all(residual.var(axis=0) < 0.01 * theirs.var(axis=0))
    # Shrunk towards the mean by the prior, as reconstructions of probabilistic PCA are.
    errors = ((vae.inverse_transform(ours) - pca.inverse_transform(theirs)) ** 2).mean(axis=0)
    assert np.all(errors < 0.05 * X.var(axis=0))


@pytest.mark.long
def test_samples_have_the_moments_of_the_data(linear: tuple[VAETransformer, np.ndarray, PCA]) -> None:
    vae, _, pca = linear
    drawn = vae.sample(20_000)
    spread = np.sqrt(np.trace(pca.get_covariance()) / 8)
    assert drawn.shape == (20_000, 8)
    np.testing.assert_allclose(drawn.mean(axis=0), pca.mean_, atol=0.05 * spread)
    np.testing.assert_allclose(np.cov(drawn.T), pca.get_covariance(), atol=0.06 * spread**2)


@pytest.mark.long
def test_samples_follow_from_their_seed() -> None:
    vae = tiny().fit(linear_gaussian(50))
    one = vae.sample(200, random_state=7)
    np.testing.assert_array_equal(one, vae.sample(200, random_state=7))
    np.testing.assert_array_equal(one[:3], vae.sample(3, random_state=7))
    assert len(np.unique(one[:, 0])) == 200
    assert not np.array_equal(one, vae.sample(200, random_state=8))


@pytest.mark.long
def test_neither_place_nor_neighbours_change_a_score() -> None:
    X = linear_gaussian(300)
    X[5, 0] = 0.0
    vae = tiny().fit(X)
    scores = vae.score_samples(X)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(vae.score_samples(X[order]), scores[order])
    np.testing.assert_array_equal(vae.score_samples(X[[17]]), scores[[17]])
    X[5, 0] = -0.0
    np.testing.assert_array_equal(vae.score_samples(X), scores)
    # The noise is there, and another seed's is another.
    assert len({vae.set_params(n_likelihood_samples=k).score(X) for k in (1, 2, 3)}) == 3


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 3), (9, 3), (2, 5)])
def test_every_row_is_in_every_epoch(num_rows: int, batch_size: int) -> None:
    batches = batch_order(0, 1, 4, num_rows, batch_size)
    assert batches.shape == (4 * -(-num_rows // batch_size), batch_size)
    epochs = batches.reshape(4, -1)
    counts = np.stack([np.bincount(epoch, minlength=num_rows) for epoch in epochs])
    assert counts.min() >= 1 and (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.long
@pytest.mark.parametrize("parameters", [{}, OTHER_PARTS], ids=["elbo", "iwae"])
def test_partial_fit_goes_on_where_training_stands(parameters: dict) -> None:
    X = linear_gaussian(70)
    whole = tiny(max_iter=3, **parameters).fit(X)
    parts = tiny(max_iter=1, **parameters).fit(X).partial_fit(X)
    parts = pickle.loads(pickle.dumps(parts)).partial_fit(X)
    from_nothing = tiny(**parameters).partial_fit(X).partial_fit(X).partial_fit(X)
    for other in (parts, from_nothing):
        np.testing.assert_array_equal(other.transform(X), whole.transform(X))
        assert (other.n_iter_, other.loss_curve_) == (3, whole.loss_curve_)
    assert not np.array_equal(clone(parts).fit(X).transform(X), whole.transform(X))


@pytest.mark.long
def test_pickle_holds_arrays_and_plain_values_only() -> None:
    X = linear_gaussian(40)
    vae = tiny(**OTHER_PARTS).fit(X)
    loaded: set[str] = set()

    class Watching(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            loaded.add(f"{module}.{name}")
            return super().find_class(module, name)

    again = Watching(io.BytesIO(pickle.dumps(vae))).load()
    np.testing.assert_array_equal(again.transform(X), vae.transform(X))
    np.testing.assert_array_equal(again.score_samples(X), vae.score_samples(X))
    others = {name for name in loaded if not name.startswith("numpy.")}
    assert others == {"vae_jax.estimator.VAETransformer"}


def compiled_by(function: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "jax"), jax.log_compiles(True):
        function()
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith("Finished XLA compilation of")]


@pytest.mark.long
def test_grid_search_compiles_each_shape_once_and_finds_the_truth(caplog: pytest.LogCaptureFixture) -> None:
    X = linear_gaussian(301)
    grid = {"n_components": [1, 3], "learning_rate": [0.01, 0.03], "random_state": [0, 1]}
    vae = VAETransformer(network="mlp(hidden=())", max_iter=60, batch_size=50, n_likelihood_samples=20)
    # Folds of 200 and of 201 rows.
    search = GridSearchCV(vae, grid, cv=3, error_score="raise")
    messages = compiled_by(lambda: search.fit(X), caplog)
    assert search.best_params_["n_components"] == 3
    for name in ("loop", "log_likelihood"):
        assert len([message for message in messages if f"jit({name})" in message]) == 2
    assert search.best_estimator_.score(X) == search.score(X)


@pytest.mark.long
def test_pipeline_reads_digits() -> None:
    X, y = digits()
    vae = VAETransformer(10, network="mlp(hidden=(64,))", max_iter=20, learning_rate=3e-3, random_state=0)
    pipeline = make_pipeline(StandardScaler(), vae, LogisticRegression(max_iter=1000)).fit(X[:1200], y[:1200])
    # One in ten by chance.
    assert pipeline.score(X[1200:], y[1200:]) > 0.7
    assert list(pipeline[:-1].get_feature_names_out()) == [f"vaetransformer{i}" for i in range(10)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "shape"), [("conv", (4, 8, 2)), pytest.param("mlp", (8, 8), marks=pytest.mark.manual)]
)
def test_images_keep_their_shape(network: str, shape: tuple[int, ...]) -> None:
    images = (digits()[0][:60] / 16.0).reshape(60, *shape)
    vae = tiny(network=network, likelihood="continuous_bernoulli").fit(images)
    z = vae.transform(images)
    assert vae.image_shape_ == (*shape, 1)[:3] and z.shape == (60, 2)
    for made in (vae.inverse_transform(z), vae.sample(60)):
        assert made.shape == images.shape
        assert made.min() >= 0.0 and made.max() <= 1.0
    # Rows that are told to be such images are the same.
    flat = images.reshape(60, -1)
    from_rows = tiny(network=network, likelihood="continuous_bernoulli", image_shape=shape).fit(flat)
    np.testing.assert_array_equal(from_rows.transform(flat), z)
    np.testing.assert_array_equal(from_rows.score_samples(flat), vae.score_samples(images))
    assert from_rows.inverse_transform(z).shape == flat.shape


@pytest.mark.long
def test_precision_is_that_of_the_rows() -> None:
    X = linear_gaussian(50)
    vae = tiny().fit(X)
    for rows, expected in ((X, np.float64), (X.astype(np.float32), np.float32), (np.int8(X > 0), np.float64)):
        assert vae.transform(rows).dtype == expected
        assert vae.inverse_transform(vae.transform(rows)).dtype == expected


@pytest.mark.long
def test_what_was_fitted_stays_whatever_parameters_become() -> None:
    X = linear_gaussian(40)
    vae = tiny().fit(X)
    before = vae.transform(X)
    vae.set_params(n_components=5, network="mlp(hidden=(3,))", batch_size=16, learning_rate=0.1)
    np.testing.assert_array_equal(vae.transform(X), before)
    with pytest.raises(UserError, match=r"can't change network: 'mlp\(hidden=\(8,\).*, n_components: 2 -> 5"):
        vae.partial_fit(X)
    vae.set_params(n_components=2, network="mlp(hidden=(8,))").partial_fit(X)
    assert vae.n_iter_ == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "parameter 'n_components' is 0 but must be at least 1"),
        ({"n_components": "two"}, "parameter 'n_components' is 'two' but must be a whole number"),
        ({"network": "mlp(hidden=(8.5,))"}, r"'hidden' of network 'mlp' is \(8.5,\) but must be whole numbers"),
        ({"learning_rate": float("nan")}, "parameter 'learning_rate' is nan"),
        ({"likelihood": "gausian"}, "parameter 'likelihood' is 'gausian'; .* did you mean 'gaussian'"),
        ({"objective": "iwae", "posterior": "point_mass"}, "objective 'iwae' and posterior 'point_mass' don't go tog"),
        ({"network": "conv(channels=())"}, "'channels' of network 'conv' is .* but must be at least one number"),
        (
            {"likelihood": "bernoulli"},
            "likelihood 'bernoulli' is a density of values that are 0 or 1, and X has others",
        ),
        ({"learning_rate": 1e30}, "the loss isn't finite any more"),
        ({"image_shape": (3, 3)}, r"image_shape \(3, 3\) is 9 numbers, but X has 8 in a row"),
        ({"image_shape": 8}, r"image_shape is 8 but must be \(H, W\)"),
        ({"max_value": 0}, "max_value is 0 but must be"),
        ({"options": "beta"}, "options is 'beta' but must be names and values"),
        ({"options": {"train.scedule": "x"}}, "options has 'train.scedule'; choose from train.optimizer, "),
        ({"options": {"model.latents": 3}}, "options has 'model.latents', which is the parameter n_components"),
        ({"options": {"model.conditional": True}}, "options has 'model.conditional'; choose"),
        ({"options": {"train.optimizer": "adm"}}, "'train.optimizer' is 'adm'; .* did you mean 'adam'"),
        ({"objective": "elbo(beta=2.0)"}, "objective 'elbo' has no setting 'beta'; its settings are num_samples=1"),
    ],
)
def test_what_does_not_go_is_refused_in_one_line(parameters: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        tiny(**parameters).fit(linear_gaussian(40))
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_what_does_not_fit_the_model_is_refused() -> None:
    X = linear_gaussian(40)
    vae = tiny().fit(X.reshape(40, 2, 4))
    with pytest.raises(UserError, match=r"images of shape \(4, 2\), but the fitted ones are of \(2, 4\)"):
        vae.transform(X.reshape(40, 4, 2))
    with pytest.raises(ValueError, match="X has 6 features, but VAETransformer is expecting 8"):
        vae.transform(X[:, :6])
    with pytest.raises(UserError, match="the latents have 3 components, but 2 were fitted"):
        vae.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(UserError, match=r"n_samples is 2\.5 but must be a whole number"):
        inspect.unwrap(type(vae).sample)(vae, 2.5)
    with pytest.raises(UserError, match="n_samples is 0"):
        vae.sample(0)
    with pytest.raises(UserError, match=r"X has rows of shape \(2, 2, 2, 1\)"):
        tiny().fit(X.reshape(40, 2, 2, 2, 1))
    with pytest.raises(UserError, match="too large to compute with"):
        tiny().fit(X * 1e300)
    with pytest.raises(UserError, match=r"doesn't know the last step, which train.schedule 'cosine'"):
        tiny(options={"train.schedule": "cosine"}).partial_fit(X)


@pytest.mark.long
def test_no_score_where_the_likelihood_is_no_density() -> None:
    grey = digits()[0][:50] / 16.0
    with pytest.raises(UserError, match="'bernoulli' is a density of values that are 0 or 1, and X has others"):
        tiny(likelihood="bernoulli").fit(grey)
    vae = tiny(likelihood="bernoulli").fit(grey > 0.5)
    assert np.all(vae.score_samples(grey > 0.5) < 0.0)
    with pytest.raises(UserError, match="and X has others"):
        vae.score_samples(grey)
    levels = tiny(likelihood="discretized_logistic", max_value=16).fit(grey)
    # Probabilities of 17 levels, of which the uniform one has a log of -181.
    assert -400.0 < levels.score(grey) < 0.0
    with pytest.raises(UserError, match=r"values that are k / 16 \(max_value\), and X has others"):
        levels.score_samples(grey * 0.99)
    autoencoder = tiny(objective="autoencoder", posterior="point_mass").fit(grey)
    for method in (autoencoder.score_samples, lambda X: autoencoder.sample(2)):
        with pytest.raises(UserError, match="a plain autoencoder has no distribution"):
            method(grey)


@pytest.mark.long
def test_an_objective_of_the_whole_data_set_knows_its_size() -> None:
    X = linear_gaussian(64)
    parameters = {"objective": "beta_tcvae(beta=4)", "batch_size": 64}
    once, twice = (tiny(max_iter=1, **parameters).fit(rows).loss_curve_ for rows in (X, np.concatenate([X, X])))
    assert np.isfinite(once + twice).all() and once != twice
