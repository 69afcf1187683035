"""Reports as Chromium shows them: nothing fetched, no error, and the pixels that JAX computes."""

import csv
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_runs import train

from vae_jax import build_model
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.models import VAE, decode_flat, init_variables
from vae_jax.report.decoder import MOST_BYTES, live_decoder
from vae_jax.report.latents import encode
from vae_jax.report.pictures import manifold_latents, prior_latents
from vae_jax.trained import TrainedModel, open_run

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

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
    return train(tmp_path_factory.mktemp("runs") / "live", "--config.model.latents=2", "--config.train.num_steps=200")


@pytest.fixture(scope="module")
def opened(live: pathlib.Path, browser: Any) -> Iterator[Opened]:
    found = Opened(browser, report(live))
    yield found
    found.page.close()


@pytest.mark.long
def test_page_opens_without_an_error_or_a_request(opened: Opened) -> None:
    assert opened.wrong == []
    assert opened.number_of("#curves .main-svg") > 0 and opened.number_of("#scatter-chart .points path") == 359
    assert opened.number_of("#samples canvas") == 48 and opened.number_of("#reconstructions canvas") == 48


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_its_window_in_both_colours(opened: Opened, browser: Any, scheme: str, width: int) -> None:
    path = pathlib.Path(opened.address.removeprefix("file://"))
    found = Opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert found.wrong == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgb()").split(","))
    assert brightness > 600 if scheme == "light" else brightness < 150
    found.page.close()


@pytest.mark.long
def test_everything_can_be_named_by_a_screen_reader(opened: Opened) -> None:
    unnamed = """[...document.querySelectorAll("input, select, button, [role=img]")].filter((each) =>
        !(each.labels && [...each.labels].some((label) => label.textContent.trim())) &&
        !each.getAttribute("aria-label") && !each.textContent.trim()).length"""
    assert opened.page.evaluate(unnamed) == 0
    hidden = "[...document.querySelectorAll('canvas')].filter((c) => !c.ariaHidden && !c.getAttribute('aria-label'))"
    assert opened.page.evaluate(f"{hidden}.length") == 0


@pytest.mark.long
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


@pytest.mark.long
def test_samples_and_manifold_are_what_jax_decodes(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    z = prior_latents(trained, 480)
    np.testing.assert_allclose(opened.pixels("#samples canvas", 5), decoded(trained, z)[5], atol=ONE_LEVEL)
    opened.page.click("#samples button")
    np.testing.assert_allclose(opened.pixels("#samples canvas", 5), decoded(trained, z)[53], atol=ONE_LEVEL)
    grid = opened.pixels("#manifold canvas").reshape(20, 8, 20, 8, 3).swapaxes(1, 2).reshape(400, 8, 8, 3)
    np.testing.assert_allclose(grid, decoded(trained, manifold_latents(20)), atol=ONE_LEVEL)


@pytest.mark.long
def test_reconstructions_stand_beside_their_originals(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    split = trained.data.for_evaluation("test")
    means = encode(trained, split).means
    np.testing.assert_array_equal(opened.pixels("#reconstructions canvas", 6)[..., :1], split.images[3])
    np.testing.assert_allclose(opened.pixels("#reconstructions canvas", 7), decoded(trained, means)[3], atol=ONE_LEVEL)


@pytest.mark.long
def test_interpolation_goes_between_the_images_that_are_picked(opened: Opened, live: pathlib.Path) -> None:
    trained = open_run(str(live))
    split = trained.data.for_evaluation("test")
    means = encode(trained, split).means
    opened.page.locator("#interpolation .from input").nth(4).check(force=True)
    opened.page.locator("#interpolation .to input").nth(9).check(force=True)
    assert opened.number_of("#interpolation .path canvas") == 9
    np.testing.assert_array_equal(opened.pixels(".path canvas", 0)[..., :1], split.images[4])
    np.testing.assert_array_equal(opened.pixels(".path canvas", 8)[..., :1], split.images[9])
    for step, share in ((0, 0.0), (2, 1 / 3), (6, 1.0)):
        z = (1 - share) * means[4:5] + share * means[9:10]
        np.testing.assert_allclose(opened.pixels(".path canvas", 1 + step), decoded(trained, z)[0], atol=ONE_LEVEL)


@pytest.mark.long
def test_click_on_the_plane_goes_there(opened: Opened) -> None:
    opened.page.click("#explorer .middle")
    opened.page.evaluate(
        "document.getElementById('scatter-chart').emit('plotly_click', {points: [{x: 1.5, y: -0.25}]})"
    )
    values = dict(
        zip(
            opened.page.locator("#explorer .name").all_text_contents(),
            opened.page.locator("#explorer output").all_text_contents(),
            strict=True,
        )
    )
    assert values == {"z1": "1.50", "z2": "−0.25"}


@pytest.mark.long
def test_drag_zooms_a_chart_and_double_click_goes_back(opened: Opened) -> None:
    chart = opened.page.locator("[data-term=kl] .nsewdrag").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    span = "document.querySelector('[data-term=kl]').layout.xaxis.range"
    whole = opened.page.evaluate(span)
    opened.page.mouse.move(box["x"] + 60, box["y"] + 60)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 140, box["y"] + 120, steps=4)
    opened.page.mouse.up()
    opened.page.wait_for_function(f"{span}[1] - {span}[0] < {0.8 * (whole[1] - whole[0])}")
    # A third click within a moment would be none of the two.
    opened.page.wait_for_timeout(500)
    opened.page.mouse.dblclick(box["x"] + 60, box["y"] + 60)
    opened.page.wait_for_function(f"Math.abs({span}[1] - {whole[1]}) < 1e-6")
    assert opened.wrong == []


MODELS = {
    "sigmoid": {"network": "mlp(hidden=(40, 30))"},
    "gaussian": {"likelihood": "gaussian", "network": "mlp(hidden=(30,), activation=tanh)"},
    "mean and variance": {"likelihood": "gaussian_per_pixel", "network": "mlp(hidden=(30,), activation=gelu)"},
    "truncated exponential": {"likelihood": "continuous_bernoulli", "network": "mlp(hidden=(30,), activation=silu)"},
    "linear": {"likelihood": "gaussian(learned=True)", "network": "mlp(hidden=())"},
    "told the class": {"conditional": True},
    "hierarchical": {"posterior": "hierarchical(upper=3)", "prior": "hierarchical(upper=3)"},
}


def with_parameters(settings: dict[str, Any], scale: float) -> tuple[VAE, Any]:
    """A model of colour images with parameters far from their start."""
    config = ModelConfig(**{"network": "mlp(hidden=(30,))", "latents": 4, **settings})
    model = build_model(config, (6, 5, 3), context_size=7)
    params = init_variables(model, jax.random.key(0), (6, 5, 3))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return model, jax.device_get(structure.unflatten(moved))


# Larger weights make means that float16 can't tell from their neighbours.
@pytest.mark.long
@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_decoder_in_the_page_is_the_models(settings: dict[str, Any], scale: float, opened: Opened) -> None:
    model, params = with_parameters(settings, scale)
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
    if scale < 1:
        assert {layer["kernel"]["type"] for layer in found["layers"]} == {"float16"}


@pytest.mark.long
def test_weights_that_float16_would_change_stay_float32(opened: Opened) -> None:
    model, params = with_parameters({"likelihood": "gaussian", "hidden": ()}, 10.0)
    z = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    found = live_decoder(model, params, z, None)
    assert found is not None and found["layers"][0]["kernel"]["type"] == "float32"
    pixels = opened.page.evaluate("([source, z]) => [...new Decoder(source).decode(z)]", [found, z[0].tolist()])
    expected = np.asarray(decode_flat(model, params, jnp.asarray(z[:1])).mean())
    np.testing.assert_allclose(pixels, expected.ravel(), atol=ONE_LEVEL)


@pytest.mark.long
def test_decoders_that_a_page_cannot_run_stay_out_of_it() -> None:
    z = np.zeros((2, 4), np.float32)
    for settings in ({"network": "conv", "hidden": (4,)}, {"likelihood": "discretized_logistic"}):
        model, params = with_parameters(settings, 0.1)
        assert live_decoder(model, params, z, None) is None
    model, params = with_parameters({"hidden": (MOST_BYTES // 2 // 90,)}, 0.1)
    assert live_decoder(model, params, z, None) is None


@pytest.fixture(scope="module")
def beforehand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of a conditional convolutional model, whose pictures are made beforehand."""
    network = ["--config.model.network=conv", "--config.model.network.hidden=(4,)", "--config.model.conditional=True"]
    # With the whole KL so small a model that is told the class would not use its latents.
    quick = ["--config.objective=beta", "--config.objective.beta=0.01", "--config.train.learning_rate=0.01"]
    return train(tmp_path_factory.mktemp("runs") / "conv", *network, *quick)


@pytest.mark.long
def test_pictures_made_beforehand_are_what_jax_decodes(beforehand: pathlib.Path, browser: Any) -> None:
    trained = open_run(str(beforehand))
    opened = Opened(browser, report(beforehand))
    axes = opened.page.evaluate("DATA.pictures.axes")
    first, second = axes["order"][:2]
    opened.page.select_option("#explorer select", "4")
    for slider, dimension, key, value in ((0, first, "Home", -3.0), (1, second, "End", 3.0)):
        opened.page.locator("#explorer input").nth(slider).press(key)
        z = np.zeros((1, 3))
        z[0, dimension] = value
        expected = decoded(trained, z, [4])[0]
        np.testing.assert_allclose(opened.pixels("#explorer .large"), expected, atol=ONE_LEVEL)
    z = prior_latents(trained, 48)
    expected = decoded(trained, z, [number % 10 for number in range(48)])
    np.testing.assert_allclose(opened.pixels("#samples canvas", 13), expected[13], atol=ONE_LEVEL)
    split = trained.data.for_evaluation("test")
    means, labels = encode(trained, split).means, split.labels
    opened.page.locator("#interpolation .from input").nth(5).check(force=True)
    opened.page.locator("#interpolation .to input").nth(2).check(force=True)
    for step, share in ((1, 1 / 6), (5, 5 / 6)):
        z = (1 - share) * means[5:6] + share * means[2:3]
        expected = decoded(trained, z, [int(labels[5] if share < 0.5 else labels[2])])[0]
        np.testing.assert_allclose(opened.pixels(".path canvas", 1 + step), expected, atol=ONE_LEVEL)
    assert opened.wrong == []
    opened.page.close()


@pytest.mark.long
def test_comparison_shows_samples_at_the_same_latents(
    live: pathlib.Path, beforehand: pathlib.Path, browser: Any
) -> None:
    opened = Opened(browser, report(live, beforehand))
    assert opened.wrong == []
    first, second = open_run(str(live)), open_run(str(beforehand))
    z = prior_latents(second, 48)
    labels = [number % 10 for number in range(48)]
    np.testing.assert_allclose(opened.pixels("#samples-0 canvas", 20), decoded(first, z[:, :2])[20], atol=ONE_LEVEL)
    np.testing.assert_allclose(opened.pixels("#samples-1 canvas", 20), decoded(second, z, labels)[20], atol=ONE_LEVEL)
    names = opened.page.evaluate("document.querySelector('[data-term=elbo]').data.map(({ name }) => name)")
    assert names == ["live, train", "live, test", "conv, train", "conv, test"]
    opened.page.close()


@pytest.mark.long
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


@pytest.mark.manual
def test_classes_have_the_names_of_their_folders(tmp_path: pathlib.Path, browser: Any) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    for number, name in enumerate(["cats", hostile] * 8):
        place = tmp_path / "pictures" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 10 * number, np.uint8)).save(place)
    run = train(
        tmp_path / "run",
        *(
            "--config.data.source=folder",
            f"--config.data.dir={tmp_path / 'pictures'}",
            "--config.data.test_fraction=0.5",
        ),
        *("--config.model.conditional=True", "--config.model.latents=2", "--config.train.batch_size=4"),
    )
    opened = Opened(browser, report(run))
    assert opened.wrong == [] and opened.number_of("img") == 0
    # In the order of their code points, as labels are numbered.
    assert opened.page.locator("#explorer-class option").all_text_contents() == [hostile, "cats"]
    assert opened.page.locator("#scatter-chart .legendtext").all_text_contents() == [hostile, "cats"]
    assert "class cats" in "".join(opened.page.locator(".from label").evaluate_all("all => all.map((e) => e.title)"))
    main(["score", f"--workdir={run}", f"--output={tmp_path / 'scores.csv'}", "--num_samples=2"])
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert {(row["label"], row["class"]) for row in csv.DictReader(file)} == {("0", hostile), ("1", "cats")}
    main(["encode", f"--workdir={run}", f"--output={tmp_path / 'latents.npz'}"])
    with np.load(tmp_path / "latents.npz", allow_pickle=False) as found:
        assert found["class_names"].tolist() == [hostile, "cats"]
    opened.page.close()
