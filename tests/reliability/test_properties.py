"""Whatever is given: it is taken for what it is, or refused in one line.

`VAE_JAX_EXAMPLES=100 pytest tests/reliability/test_properties.py` tries a hundred times as many examples, other ones at
each start.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import tempfile
import unicodedata
from collections.abc import Iterator
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from absl import flags as absl_flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import vae_jax
from vae_jax.cli import flags, main, train
from vae_jax.config import Config, flatten, from_mapping
from vae_jax.data import ImageKind, load_npz
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder

pytestmark = pytest.mark.long

TIMES = int(os.environ.get("VAE_JAX_EXAMPLES", "1"))


def examples(count: int):
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Lets an error of the user's pass, if it is one line that can be printed."""
    try:
        yield
    except UserError as error:
        assert len(str(error)) < 10_000
        assert not [letter for letter in str(error) if unicodedata.category(letter) in ("Cc", "Cf", "Cs")]


TEXTS = st.text(max_size=20) | st.sampled_from(["", "mlp", "nan", "1e400", "(3,)", "os:system", "\x1b[2J", "a" * 5000])
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**31, -(2**63), 10**400, 2**32 - 1])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [(name, field) for name, _, field in flatten(Config())]


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def fitting(field: dataclasses.Field) -> st.SearchStrategy:
    """Values of the type of a field, in its bounds or beside them."""
    edges = [edge for edge in (field.metadata["minimum"], field.metadata["below"]) if edge is not None]
    near = [edge + step for edge in edges for step in (-1, 0, 1)]
    if field.type is bool:
        return st.booleans()
    if field.type is str:
        return TEXTS
    if field.type is int:
        return st.integers() | st.sampled_from([round(number) for number in near] or [0])
    if field.type is float:
        return st.floats() | st.sampled_from([float(number) for number in near] or [0.0])
    return st.lists(st.integers(-1, 10**4), max_size=200)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[name for name, _ in FIELDS])
def test_any_value_of_a_field(name: str, field: dataclasses.Field) -> None:
    @examples(12)
    @given(VALUES | fitting(field))
    def check(value: Any) -> None:
        with one_line():
            config = from_mapping(nested(name, value))
            # What is taken is what was given, and comes back from the file it is kept in.
            kept = dict((known, found) for known, found, _ in flatten(config))
            assert kept.pop(name) == (tuple(value) if isinstance(value, list) else value)
            assert kept == {known: default for known, default, _ in flatten(Config()) if known != name}
            assert from_mapping(json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))) == config

    check()


@examples(80)
@given(VALUES | st.dictionaries(st.sampled_from([*dataclasses.asdict(Config()), "x"]), VALUES, max_size=3), st.data())
def test_any_json_and_any_bytes_for_a_config(content: Any, data: st.DataObject) -> None:
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "config.json")
        path.write_bytes(data.draw(st.just(text) | st.binary(max_size=50)))
        with one_line():
            assert isinstance(RunFolder(path.parent).read_config(), Config)


@examples(100)
@given(st.sampled_from([name for name, _ in FIELDS]), TEXTS | VALUES.map(str), st.sampled_from(["=", "", "==", "[0]="]))
def test_any_text_on_the_command_line(name: str, value: str, between: str) -> None:
    with one_line(), contextlib.suppress(absl_flags.Error):
        config = flags.read_config(flags.parse(train, [f"--config.{name}{between}{value}"]))
        assert isinstance(config, Config)


@examples(60)
@given(st.lists(TEXTS | st.sampled_from(["sample", "--workdir=x", "--help=", "--checkpoint", "--", "-"]), max_size=3))
def test_any_words_on_the_command_line(words: list[str]) -> None:
    """No word of these names a run, so each ends in one line."""
    if any(word in ("--help", "-h", "-help", "--helpfull") for word in words) or not words:
        return
    errors = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stderr(errors):
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *words])
        assert not os.listdir(folder)
    assert caught.value.code == 2 and errors.getvalue().count("\n") == 1
    assert "\x1b" not in errors.getvalue()


DTYPES = hnp.scalar_dtypes() | hnp.unicode_string_dtypes(max_len=3) | st.just(np.dtype("u1")) | st.just(np.dtype(">f4"))
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


@examples(100)
@given(
    hnp.arrays(DTYPES, SHAPES) | hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)), st.data()
)
def test_any_arrays_in_an_archive(images: np.ndarray, data: st.DataObject) -> None:
    labels = data.draw(
        st.none() | hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), len(images.ravel()[:4]))
    )
    arrays = {"images": images} | ({} if labels is None else {"labels": labels})
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "images.npz")
        save(path, **arrays)
        whole = path.read_bytes()
        if data.draw(st.booleans()):
            place = data.draw(st.integers(0, len(whole) - 1))
            path.write_bytes(data.draw(st.sampled_from([whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]])))
        with one_line():
            found = load_npz(str(path), 0.25, 0)
            taken = np.concatenate([found.train_images, found.test_images])
            assert images.dtype == np.uint8 and sorted(map(bytes, taken)) == sorted(map(bytes, images))


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
KIND = ImageKind((4, 4, 3), 255, 0)


@examples(100)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(MODES),
    st.sampled_from(["PNG", "BMP", "GIF", "TIFF", "JPEG", "WEBP"]),
    st.sampled_from(["whole", "cut", "flipped"]),
    st.data(),
)
def test_any_picture_cut_or_changed_anywhere(pixels: np.ndarray, mode: str, kind: str, change: str, data) -> None:
    file = io.BytesIO()
    picture = Image.fromarray(pixels).convert("L" if mode == "LA" else "RGB").convert(mode)
    try:
        picture.save(file, kind)
    except (OSError, ValueError):
        return  # Not every format has every mode.
    whole = file.getvalue()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :]
    content = {"whole": whole, "cut": whole[:place], "flipped": flipped}[change]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "picture.png")
        path.write_bytes(whole)
        own = ImageKind((*picture.size[::-1], 3), 255, 0)
        expected = read_images(str(path), own)[0].split.images[0]
        if kind in ("PNG", "BMP", "TIFF") and mode in ("L", "RGB"):
            np.testing.assert_array_equal(expected, np.asarray(picture.convert("RGB")))
        path.write_bytes(content)
        with one_line():
            found, _ = read_images(str(path), own)
            # Some formats end with what isn't needed: nothing but the picture itself may come of the rest.
            if change != "flipped":
                np.testing.assert_array_equal(found.split.images[0], expected)


COLUMNS = 3
TABLES = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.bool_, np.uint8]),
    st.tuples(st.integers(0, 9), st.just(COLUMNS)),
)
ANYTHING = TABLES | hnp.arrays(hnp.scalar_dtypes() | st.just(np.dtype("O")), SHAPES) | VALUES


def tiny() -> vae_jax.VAETransformer:
    return vae_jax.VAETransformer(2, network="mlp(hidden=(4,))", max_iter=1, batch_size=8, random_state=0)


@pytest.fixture(scope="module")
def fitted() -> vae_jax.VAETransformer:
    X = np.random.default_rng(0).normal(size=(40, COLUMNS))
    return vae_jax.VAETransformer(
        n_components=2, network="mlp(hidden=(4,))", max_iter=1, batch_size=8, random_state=0
    ).fit(X)


@examples(60)
@given(X=ANYTHING)
@pytest.mark.filterwarnings("ignore")
def test_any_array_for_a_fitted_estimator(fitted: vae_jax.VAETransformer, X: Any) -> None:
    """scikit-learn's own errors, `ValueError` and `TypeError`, or ours."""
    for function in (fitted.transform, fitted.score_samples):
        try:
            found = function(X)
        except (ValueError, TypeError, UserError):
            continue
        assert len(found) == len(X) and np.shape(X)[1] == COLUMNS


@examples(12)
@given(X=ANYTHING)
@pytest.mark.filterwarnings("ignore")
def test_any_array_to_fit(X: Any) -> None:
    try:
        found = vae_jax.VAETransformer(
            n_components=2, network="mlp(hidden=(4,))", max_iter=1, batch_size=8, random_state=0
        ).fit(X)
    except (ValueError, TypeError, UserError):
        return
    assert found.transform(X).shape == (len(X), 2)
