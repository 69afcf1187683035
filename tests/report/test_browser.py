"""Reports as Chromium shows them: nothing fetched, no error, and the pixels that JAX computes."""

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import train

from vae_jax import build_model
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.models import VAE, decode_flat, init_variables
from vae_jax.report.decoder import live_decoder
from vae_jax.report.latents import encode
from vae_jax.report.pictures import manifold_latents, prior_latents
from vae_jax.trained import TrainedModel, open_run

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ONE_LEVEL = 1 / 255


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Opened:
    """A page that was opened by its file, and all that it complained of or asked for.

    Attributes:
        page: Playwright's.
        wrong: Messages of the console, errors, dialogs, and requests that leave the file.
    """

    def __init__(self, browser: Any, path: pathlib.Path, **settings: Any) -> None:
        # A page that glides somewhere would move under the mouse.
        self.page = browser.new_page(reduced_motion="reduce", **settings)
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._requested)
        self.address = path.resolve().as_uri()
        self.page.goto(self.address)
        self.page.wait_for_selector("html.ready", state="attached")

    def _requested(self, request: Any) -> None:
        if request.url != self.address and not request.url.startswith("data:"):
            self.wrong.append(request.url)

    def pixels(self, selector: str, index: int = 0) -> np.ndarray:
        """What a canvas shows, `[H, W, 3]` in [0, 1]."""
        script = """([selector, index]) => {
            const canvas = document.querySelectorAll(selector)[index], { width, height } = canvas;
            // Read from a copy: Chromium remarks on canvases of the page that are read often.
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            return [height, width, [...copy.getImageData(0, 0, width, height).data]];
        }"""
        height, width, values = self.page.evaluate(script, [selector, index])
        return np.reshape(values, (height, width, 4))[..., :3] / 255

    def number_of(self, selector: str) -> int:
        return self.page.locator(selector).count()


def report(*folders: pathlib.Path) -> pathlib.Path:
    main(["report", *(f"--workdir={folder}" for folder in folders)])
    return folders[0] / ("report.html" if len(folders) == 1 else "comparison.html")


def decoded(trained: TrainedModel, z: np.ndarray, labels: list[int] | None = None) -> np.ndarray:
    """The mean of p(x|z) by the model itself, three channels."""
    label = None if labels is None else jnp.asarray(labels, jnp.int32)
    images = np.asarray(decode_flat(trained.model, trained.variables, jnp.asarray(z, jnp.float32), label).mean())
    return np.broadcast_to(np.clip(images, 0, 1), (*images.shape[:-1], 3))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with two latents whose decoder is in the page."""
    return train(tmp_path_factory.mktemp("runs") / "live", "--config.train.num_steps=200")


@pytest.fixture(scope="module")
def opened(live: pathlib.Path, browser: Any) -> Iterator[Opened]:
    found = Opened(browser, report(live))
    yield found
    found.page.close()


def test_page_opens_without_an_error_or_a_request(opened: Opened) -> None:
    assert opened.wrong == []
    assert opened.number_of("#curves .main-svg") > 0 and opened.number_of("#scatter-chart .points path") == 359
    assert opened.number_of("#samples canvas") == 48 and opened.number_of("#reconstructions canvas") == 48
    # Everything can be named by a screen reader.
    unnamed = """[...document.querySelectorAll("input, select, button, [role=img]")].filter((each) =>
        !(each.labels && [...each.labels].some((label) => label.textContent.trim())) &&
        !each.getAttribute("aria-label") && !each.textContent.trim()).length"""
    assert opened.page.evaluate(unnamed) == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1280)])
def test_a_page_fits_its_window_in_both_colours(opened: Opened, browser: Any, scheme: str, width: int) -> None:
    path = pathlib.Path(opened.address.removeprefix("file://"))
    found = Opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert found.wrong == [] and found.page.evaluate("document.documentElement.scrollWidth") <= width
    background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgb()").split(","))
    assert brightness > 600 if scheme == "light" else brightness < 150
    found.page.close()


def test_slider_changes_the_picture_to_what_jax_decodes(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    order = opened.page.evaluate("DATA.pictures.axes.order")
    opened.page.click("#explorer .middle")
    before = opened.pixels("#explorer .large")
    np.testing.assert_allclose(before, decoded(trained, np.zeros((1, 2)))[0], atol=ONE_LEVEL)
    slider = opened.page.locator("#explorer input").first
    slider.focus()
    slider.press("End")
    z = np.zeros((1, 2))
    z[0, order[0]] = 3.0
    after = opened.pixels("#explorer .large")
    np.testing.assert_allclose(after, decoded(trained, z)[0], atol=ONE_LEVEL)
    assert np.abs(after - before).max() > 0.02
    assert opened.page.locator("#explorer output").first.text_content() == "3.00"
    # One press of a key goes one step of 1/50.
    slider.press("ArrowLeft")
    assert opened.page.locator("#explorer output").first.text_content() == "2.98"
    np.testing.assert_allclose(opened.pixels("#explorer .end", 1), decoded(trained, z)[0], atol=ONE_LEVEL)


def test_samples_and_manifold_are_what_jax_decodes(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    z = prior_latents(trained, 480)
    np.testing.assert_allclose(opened.pixels("#samples canvas", 5), decoded(trained, z)[5], atol=ONE_LEVEL)
    opened.page.click("#samples button")
    np.testing.assert_allclose(opened.pixels("#samples canvas", 5), decoded(trained, z)[53], atol=ONE_LEVEL)
    grid = opened.pixels("#manifold canvas").reshape(20, 8, 20, 8, 3).swapaxes(1, 2).reshape(400, 8, 8, 3)
    np.testing.assert_allclose(grid, decoded(trained, manifold_latents(20)), atol=ONE_LEVEL)


def test_interpolation_goes_between_the_images_that_are_picked(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    split = trained.data.for_evaluation("test")
    means = encode(trained, split).means
    opened.page.locator("#interpolation .from input").nth(4).check(force=True)
    opened.page.locator("#interpolation .to input").nth(9).check(force=True)
    assert opened.number_of("#interpolation .path canvas") == 9
    np.testing.assert_array_equal(opened.pixels("#reconstructions canvas", 6)[..., :1], split.images[3])
    np.testing.assert_array_equal(opened.pixels(".path canvas", 0)[..., :1], split.images[4])
    np.testing.assert_array_equal(opened.pixels(".path canvas", 8)[..., :1], split.images[9])
    for step, share in ((0, 0.0), (2, 1 / 3), (6, 1.0)):
        z = (1 - share) * means[4:5] + share * means[9:10]
        np.testing.assert_allclose(opened.pixels(".path canvas", 1 + step), decoded(trained, z)[0], atol=ONE_LEVEL)


MODELS = {
    "sigmoid": {"network": "mlp(hidden=(40, 30))"},
    "mean and variance": {"likelihood": "gaussian_per_pixel", "network": "mlp(hidden=(30,), activation=gelu)"},
    "truncated exponential": {"likelihood": "continuous_bernoulli", "network": "mlp(hidden=(30,), activation=silu)"},
    "linear": {"likelihood": "gaussian(learned=True)", "network": "mlp(hidden=())"},
    "told the class": {"conditional": True},
    "hierarchical": {"posterior": "hierarchical(upper=3)", "prior": "hierarchical(upper=3)"},
}


def with_parameters(settings: dict[str, Any]) -> tuple[VAE, Any]:
    """A model of colour images with parameters far from their start."""
    config = ModelConfig(**{"network": "mlp(hidden=(30,))", "latents": 4, **settings})
    model = build_model(config, (6, 5, 3), context_size=7)
    params = init_variables(model, jax.random.key(0), (6, 5, 3))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return model, jax.device_get(structure.unflatten(moved))


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_decoder_in_the_page_is_the_models(settings: dict[str, Any], opened: Opened) -> None:
    model, params = with_parameters(settings)
    z = np.random.default_rng(0).normal(size=(20, model.prior.latents)).astype(np.float32)
    labels = np.arange(20) % 7 if model.context_size else None
    found = live_decoder(model, params, z, labels)
    assert found is not None
    given = None if labels is None else jnp.asarray(labels)
    expected = np.asarray(decode_flat(model, params, jnp.asarray(z), given).mean())
    script = """([source, z, labels]) => {
        const decoder = new Decoder(source);
        return z.map((each, i) => [...decoder.decode(each, labels && labels[i])]);
    }"""
    seen = z[:, : model.num_decoded].tolist()
    images = opened.page.evaluate(script, [found, seen, None if labels is None else labels.tolist()])
    np.testing.assert_allclose(np.reshape(images, expected.shape), expected, atol=ONE_LEVEL)
    assert {layer["kernel"]["type"] for layer in found["layers"]} == {"float16"}


def test_script_in_a_name_is_shown_and_not_run(live: pathlib.Path, tmp_path: pathlib.Path, browser: Any) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)<script>"
    runs = [pathlib.Path(shutil.copytree(live, tmp_path / f"{number}{hostile}")) for number in (1, 2)]
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        config["data"]["name"] = "</script><script>alert(3)</script>"
        (run / "config.json").write_text(json.dumps(config))
    for path in (report(runs[0]), report(*runs)):
        opened = Opened(browser, path)
        assert opened.wrong == []
        assert hostile in opened.page.locator("h1").text_content()
        assert opened.number_of("img") == 0 and opened.number_of("script") == 3
        opened.page.close()
