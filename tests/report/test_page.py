"""What a report says, and that it holds everything it needs and runs nothing it shouldn't."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import TINY, rows, train

from vae_jax import build_model
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.report.decoder import live_decoder
from vae_jax.report.payload import Sheet, to_json
from vae_jax.trained import open_run

HOSTILE = "<script>alert(1)</script>\"'&"


class Page(html.parser.HTMLParser):
    """A page taken apart by Python's own parser.

    Attributes:
        elements: Name and attributes of each element.
        scripts: Attributes and text of each script.
        text: All text but that of scripts and styles, with single spaces.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._words: list[str] = []
        self._inside = ""
        self.feed(source)
        self.close()
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self._inside != "style":
            self._words.append(data)

    @property
    def data(self) -> Any:
        """What the page's scripts are given."""
        (text,) = (text for attributes, text in self.scripts if attributes.get("type") == "application/json")
        return json.loads(text, parse_constant=pytest.fail)


def report(*folders: pathlib.Path, arguments: tuple[str, ...] = ()) -> Page:
    name = folders[0] / "page.html"
    main(["report", *(f"--workdir={folder}" for folder in folders), f"--output={name}", *arguments])
    return Page(name.read_text())


def test_a_page_holds_all_that_it_needs(run: pathlib.Path) -> None:
    page = report(run)
    assert (run / "page.html").stat().st_size < 10e6
    for name, attributes in page.elements:
        assert name not in ("iframe", "object", "embed", "base")
        for attribute in ("src", "href"):
            assert (attributes.get(attribute) or "#").startswith(("#", "data:")), (name, attributes)
        assert not any(attribute.startswith("on") for attribute in attributes)
    # Only the scripts that were written may run.
    (policy,) = (each["content"] for name, each in page.elements if each.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    scripts = [text for attributes, text in page.scripts if attributes.get("type") is None]
    expected = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == expected and len(expected) == 2
    (script_source,) = re.findall(r"script-src ([^;]*)", policy)
    assert "unsafe" not in script_source


@pytest.mark.long
def test_a_page_says_what_was_measured_and_of_what(run: pathlib.Path) -> None:
    last, page = rows(run)[-1], report(run)
    assert f"ELBO −{-last['elbo']:.2f} ± {last['elbo_standard_error']:.2f} (images) nats per image" in page.text
    assert f"reconstruction −{-last['reconstruction']:.2f} KL {last['kl']:.2f}" in page.text
    assert "359 test images, measured in training" in page.text
    for split in ("train", "validation", "test"):
        of_split = [row for row in rows(run) if row["split"] == split]
        for name in ("step", "elbo", "reconstruction", "kl"):
            assert page.data["curves"][split][name] == [row[name] for row in of_split]
    (start,) = json.loads((run / "manifest.json").read_text())["starts"]
    assert " ".join(start["command"]) in page.text and start["time"] in page.text
    assert f"jax {start['versions']['jax']}" in page.text and start["processor"] in page.text
    assert "train.num_steps 12 (changed)" in page.text and "model.likelihood bernoulli" in page.text
    main(["evaluate", f"--workdir={run}", "--num_samples=7"])
    likelihood = json.loads((run / "evaluation.json").read_text())["log_likelihood"]
    # Of another version, or none.
    (run / "diagnosis.json").write_text(json.dumps({"params_digest": open_run(str(run)).params_digest}))
    text = report(run).text
    assert f"log p(x) −{-likelihood['mean']:.2f} ± {likelihood['standard_error_images']:.2f} (images) ±" in text
    assert "importance sampling with K = 7" in text
    assert "diagnosis.json is not of these parameters, or can't be read" in text
    # The evaluation of another checkpoint says nothing of this one.
    assert "log p(x) −" not in report(run, arguments=("--checkpoint=6",)).text


@pytest.mark.long
def test_text_of_others_stays_text(run: pathlib.Path) -> None:
    place = run.rename(run.with_name("a<b>&"))
    config, manifest = (json.loads((place / name).read_text()) for name in ("config.json", "manifest.json"))
    (start,) = manifest["starts"]
    config["data"]["name"] = start["data"]["name"] = HOSTILE
    start["command"] = ["main.py", HOSTILE]
    (place / "config.json").write_text(json.dumps(config))
    (place / "manifest.json").write_text(json.dumps(manifest))
    other = pathlib.Path(shutil.copytree(place, place.with_name(f"b{HOSTILE.replace('/', '')}")))
    for page in (report(place), report(place, other)):
        assert len(page.scripts) == 3
        assert HOSTILE in page.text and "a<b>&" in page.text
    assert [each["name"] for each in page.data["runs"]] == [place.name, other.name]


def test_json_in_a_page_has_no_markup_and_comes_back() -> None:
    content = {"text": HOSTILE + "<!--", "numbers": [1, 2.5, None]}
    text = to_json(content, 1000)
    assert not set("<>&") & set(text) and json.loads(text) == content


def test_pictures_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).random((20, 40, 30, 3)).astype(np.float32)
    whole = json.loads(to_json({"a": [Sheet(noise)]}, 10**7))["a"][0]
    assert (whole["width"], whole["height"], whole["columns"]) == (30, 40, 16)
    text = to_json({"a": [Sheet(noise)]}, 12_000)
    assert len(text) <= 12_000 and json.loads(text)["a"][0]["width"] < 30


@pytest.mark.long
def test_one_test_image_is_one_and_data_that_is_gone_is_left_out(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """One image has nothing to lie between, and doesn't tell which dimensions tell images apart."""
    images = np.random.default_rng(0).integers(0, 256, (41, 6, 6), np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=images[1:], test_images=images[:1])
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}", "--config.train.batch_size=16"]
    run = train(tmp_path / "one", *source)
    assert "is collapsing" not in capsys.readouterr().out
    page = report(run)
    assert "The test image, left of its reconstruction" in page.text
    assert "1 test image, measured in training" in page.text and "over 1 test image;" in page.text
    for wrong in ("1 test images", "Interpolation", "has collapsed", "tell images apart"):
        assert wrong not in page.text
    (tmp_path / "mine.npz").unlink()
    text = report(run).text
    assert "not found" in capsys.readouterr().out
    assert "The run's images can't be read, so what needs them is left out" in text and "mine.npz" in text
    assert "Latent traversals" in text and "Reconstructions" not in text


@pytest.mark.long
def test_replicas_and_comparisons_stand_side_by_side(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = train(tmp_path / "other", "--config.num_seeds=2", "--config.model.latents=3")
    last = rows(other)[-1]
    first, second = report(other), report(other, arguments=("--replica=1",))
    for page in (first, second):
        assert f"± {last['elbo_spread']:.2f} (standard deviation between seeds)" in page.text
        assert page.data["curves"]["test"]["elbo_spread"][-1] == last["elbo_spread"]
    assert "Pictures are of replica 1 (seed 1)" in second.text
    layers = [page.data["pictures"]["decoder"]["layers"][0]["kernel"]["base64"] for page in (first, second)]
    assert layers[0] != layers[1]
    page = report(run, other)
    assert f"−{-rows(run)[-1]['elbo']:.2f} ± {rows(run)[-1]['elbo_standard_error']:.2f} (images)" in page.text
    assert "model.latents 2 3" in page.text and [len(each["kl"]) for each in page.data["runs"]] == [2, 3]
    grey = train(tmp_path / "grey", "--config.data.binarization=none", "--config.model.likelihood=gaussian")
    assert "can't be compared in nats" in report(run, grey).text


@pytest.mark.long
def test_an_autoencoder_has_no_samples(tmp_path: pathlib.Path) -> None:
    page = report(train(tmp_path / "run", "--config.objective=autoencoder", "--config.model.posterior=point_mass"))
    assert "no samples from it" in page.text and "no bound" in page.text
    assert "samples" not in page.data["pictures"] and "reconstructions" in page.data["pictures"]


@pytest.mark.long
def test_the_end_of_training_writes_it_and_a_failure_harms_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", "--config.train.report=True")
    assert "step 12" in Page((tmp_path / "run" / "report.html").read_text()).text

    def fails(trained) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr("vae_jax.cli.report.report_page", fails)
    capsys.readouterr()
    main([f"--workdir={tmp_path / 'other'}", *TINY, "--config.train.report=True"])
    out, err = capsys.readouterr()
    assert "everything is in" in out and "report.html wasn't written (no ink); to try again:" in err
    assert not [path for path in (tmp_path / "other").iterdir() if "report" in path.name]


@pytest.mark.long
@pytest.mark.parametrize(("settings", "there"), [({}, True), ({"network": "conv(channels=(4,))"}, False)])
def test_only_decoders_that_a_page_can_run_are_in_it(settings: dict[str, str], there: bool) -> None:
    model = build_model(ModelConfig(**{"network": "mlp(hidden=(8,))", "latents": 2, **settings}), (8, 8, 1))
    variables = init_variables(model, jax.random.key(0), (8, 8, 1))
    assert (live_decoder(model, variables, np.zeros((2, 2), np.float32), None) is not None) == there
