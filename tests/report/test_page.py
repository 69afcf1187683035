"""What a report says, and that it holds everything it needs and runs nothing it shouldn't."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY, train

from vae_jax.cli import main
from vae_jax.report.payload import Sheet, packed, to_json
from vae_jax.trained import open_run

pytestmark = pytest.mark.long

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return train(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


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
    main(["report", *(f"--workdir={folder}" for folder in folders), *arguments])
    replica = "_replica1" if "--replica=1" in arguments else ""
    name = f"report{replica}.html" if len(folders) == 1 else "comparison.html"
    return Page((folders[0] / name).read_text())


def rows(run: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_page_holds_all_that_it_needs_in_under_ten_megabytes(run: pathlib.Path, capsys) -> None:
    page = report(run)
    assert (run / "report.html").stat().st_size < 10e6
    assert f"{run / 'report.html'}, 4.9 MB" in capsys.readouterr().out
    for name, attributes in page.elements:
        assert name not in ("iframe", "object", "embed", "base")
        for attribute in ("src", "href"):
            assert (attributes.get(attribute) or "#").startswith(("#", "data:")), (name, attributes)
    assert "url(" not in (run / "report.html").read_text().split("</style>")[0]


def test_only_the_scripts_that_were_written_may_run(run: pathlib.Path) -> None:
    page = report(run)
    (policy,) = (each["content"] for name, each in page.elements if each.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    scripts = [text for attributes, text in page.scripts if attributes.get("type") is None]
    expected = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == expected and len(expected) == 2
    script_source = re.search(r"script-src ([^;]*)", policy)
    assert script_source is not None and "unsafe" not in script_source[1]
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]


def test_result_is_the_last_measurement_with_its_error(run: pathlib.Path) -> None:
    (last,) = (row for row in rows(run) if (row["step"], row["split"]) == (40, "test"))
    text = report(run).text
    assert f"ELBO −{-last['elbo']:.2f} ± {last['elbo_standard_error']:.2f} (images) nats per image" in text
    assert f"reconstruction −{-last['reconstruction']:.2f} KL {last['kl']:.2f}" in text
    assert "359 test images, measured in training" in text


def test_evaluation_of_this_checkpoint_takes_its_place(run: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}", "--num_samples=7"])
    found = json.loads((run / "evaluation.json").read_text())
    likelihood = found["log_likelihood"]
    line = f"log p(x) −{-likelihood['mean']:.2f} ± {likelihood['standard_error_images']:.2f} (images) ±"
    text = report(run).text
    assert line in text and "importance sampling with K = 7" in text
    # That of another checkpoint says nothing of this one.
    assert "log p(x) −" not in report(run, arguments=("--checkpoint=20",)).text


def test_curves_are_the_metrics(run: pathlib.Path) -> None:
    curves = report(run).data["curves"]
    for split in ("train", "validation", "test"):
        of_split = [row for row in rows(run) if row["split"] == split]
        for name in ("step", "elbo", "reconstruction", "kl"):
            assert curves[split][name] == [row[name] for row in of_split]


def test_page_says_where_the_run_came_from(run: pathlib.Path) -> None:
    (start,) = json.loads((run / "manifest.json").read_text())["starts"]
    text = report(run).text
    assert " ".join(start["command"]) in text and start["time"] in text
    assert f"jax {start['versions']['jax']}" in text and start["processor"] in text
    assert "train.num_steps 40 (changed)" in text and "model.likelihood bernoulli" in text


def test_diagnosis_that_cannot_be_read_is_left_out(run: pathlib.Path) -> None:
    other_version = json.dumps({"advice": {}, "params_digest": open_run(str(run)).params_digest})
    for content in (other_version, "[]", "not JSON"):
        (run / "diagnosis.json").write_text(content)
        text = report(run).text
        assert "Diagnosis" not in text and "diagnosis.json is not of these parameters, or can't be read" in text


def test_a_run_that_was_stopped_is_said_to_be_unfinished(run: pathlib.Path) -> None:
    assert "unfinished" not in report(run).text
    config = json.loads((run / "config.json").read_text())
    config["train"]["num_steps"] = 1080
    (run / "config.json").write_text(json.dumps(config))
    assert "The run is unfinished: step 40 of 1,080." in report(run).text


def test_text_of_others_stays_text(run: pathlib.Path) -> None:
    place = run.rename(run.with_name("a<b>&"))
    config = json.loads((place / "config.json").read_text())
    config["data"]["name"] = HOSTILE
    (place / "config.json").write_text(json.dumps(config))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["starts"][0]["command"] = ["main.py", HOSTILE]
    manifest["starts"][0]["data"]["name"] = HOSTILE
    (place / "manifest.json").write_text(json.dumps(manifest))
    other = pathlib.Path(shutil.copytree(place, place.with_name(f"b{HOSTILE.replace('/', '')}")))
    for page in (report(place), report(place, other)):
        assert len(page.scripts) == 3
        assert HOSTILE in page.text and "a<b>&" in page.text
    assert [each["name"] for each in page.data["runs"]] == [place.name, other.name]


def test_json_in_a_page_has_no_markup_and_comes_back() -> None:
    content = {"text": HOSTILE + "<!--", "numbers": [1, 2.5, None]}
    text = to_json(content, 1000)
    assert not set("<>&") & set(text)
    assert json.loads(text) == content


def test_packed_arrays_are_little_endian_rows() -> None:
    array = np.array([[1.0, -2.5], [0.1, 60000.0]], ">f4")
    for dtype in ("float16", "float32"):
        found = packed(array.astype(dtype))
        assert (found["type"], found["shape"]) == (dtype, [2, 2])
        back = np.frombuffer(base64.b64decode(found["base64"]), np.dtype(dtype).newbyteorder("<"))
        np.testing.assert_array_equal(back, array.astype(dtype).ravel())


def test_pictures_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).random((20, 40, 30, 3)).astype(np.float32)
    whole = json.loads(to_json({"a": [Sheet(noise)]}, 10**7))["a"][0]
    assert (whole["width"], whole["height"], whole["columns"]) == (30, 40, 16)
    text = to_json({"a": [Sheet(noise)]}, 12_000)
    assert len(text) <= 12_000
    assert json.loads(text)["a"][0]["width"] < 30


def test_data_that_is_gone_leaves_out_what_needs_it(tmp_path: pathlib.Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 7, 3), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}"]
    grey = ["--config.data.binarization=none", "--config.model.likelihood=gaussian", "--config.train.batch_size=8"]
    run = train(tmp_path / "run", *source, *grey)
    assert "Reconstructions" in report(run).text
    (tmp_path / "mine.npz").unlink()
    text = report(run).text
    assert "The run's images can't be read, so what needs them is left out" in text and "mine.npz" in text
    assert "Samples" in text and "Latent traversals" in text
    assert "Reconstructions" not in text and "Interpolation" not in text


@pytest.mark.manual
def test_replicas_show_one_and_the_spread_of_all(tmp_path: pathlib.Path) -> None:
    run = train(tmp_path / "run", "--config.num_seeds=2")
    last = rows(run)[-1]
    first, second = report(run), report(run, arguments=("--replica=1",))
    for page in (first, second):
        assert f"± {last['elbo_spread']:.2f} (standard deviation between seeds)" in page.text
        assert page.data["curves"]["test"]["elbo_spread"][-1] == last["elbo_spread"]
    assert "Pictures are of replica 1 (seed 1)" in second.text
    layers = [page.data["pictures"]["decoder"]["layers"][0]["kernel"]["base64"] for page in (first, second)]
    assert layers[0] != layers[1]
    main(["evaluate", f"--workdir={run}", "--replica=1", "--num_samples=5"])
    assert "importance sampling" not in report(run).text
    assert "importance sampling" in report(run, arguments=("--replica=1",)).text


def test_autoencoder_has_no_samples(tmp_path: pathlib.Path) -> None:
    plain = ["--config.objective=autoencoder", "--config.model.posterior=point_mass"]
    page = report(train(tmp_path / "run", *plain))
    assert "no samples from it" in page.text and "no bound" in page.text
    assert "samples" not in page.data["pictures"] and "reconstructions" in page.data["pictures"]


@pytest.mark.manual
def test_comparison_puts_runs_side_by_side(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = train(tmp_path / "other", "--config.model.latents=2", "--config.train.num_steps=20")
    page = report(run, other)
    for folder, step in ((run, 40), (other, 20)):
        (last,) = (row for row in rows(folder) if (row["step"], row["split"]) == (step, "test"))
        assert f"−{-last['elbo']:.2f} ± {last['elbo_standard_error']:.2f} (images)" in page.text
    assert "model.latents 3 2" in page.text and "train.num_steps 40 20" in page.text
    assert [len(each["kl"]) for each in page.data["runs"]] == [3, 2]
    assert "as far as a model has these dimensions" in page.text
    grey = train(
        tmp_path / "grey", "--config.data.binarization=none", "--config.model.likelihood=gaussian", "--config.seed=1"
    )
    assert "can't be compared in nats" in report(run, grey).text


def test_end_of_training_writes_it_and_a_failure_harms_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [*TINY, "--config.train.num_steps=2", "--config.train.report=True"]
    main([f"--workdir={tmp_path / 'run'}", *few])
    assert "step 2" in Page((tmp_path / "run" / "report.html").read_text()).text

    def fails(trained) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr("vae_jax.cli.report.report_page", fails)
    capsys.readouterr()
    main([f"--workdir={tmp_path / 'other'}", *few])
    out, err = capsys.readouterr()
    assert "everything is in" in out and "report.html wasn't written (no ink); to try again:" in err
    assert not [path for path in (tmp_path / "other").iterdir() if "report" in path.name]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [([], "no run is named"), (["--workdir=nowhere"], "holds no run"), (["--output=."], "must end in .html")],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], reason: str, finished: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    folder = [f"--workdir={finished}"] if arguments == ["--output=."] else []
    with pytest.raises(SystemExit) as caught:
        main(["report", *folder, *arguments])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(run: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["report", f"--workdir={run}", f"--workdir={run.parent}/./run"])
    assert "name each run once" in capsys.readouterr().err
    assert not (run / "comparison.html").exists()


@pytest.mark.manual
def test_what_is_left_out_is_told_on_standard_output(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "mine.npz", images=np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8))
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}", "--config.train.batch_size=16"]
    runs = [train(tmp_path / name, *source, "--config.train.num_steps=3") for name in "ab"]
    (tmp_path / "mine.npz").unlink()
    for folders in (runs[:1], runs):
        capsys.readouterr()
        page = report(*folders)
        told = capsys.readouterr().out
        for text in (told, page.text):
            assert text.count("what needs them is left out") == len(folders)
        assert "not found" in told and "--config." not in told


def test_one_test_image_is_one(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """It has nothing to lie between, and doesn't tell which dimensions tell images apart."""
    images = np.random.default_rng(0).integers(0, 256, (41, 6, 6), np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=images[1:], test_images=images[:1])
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}", "--config.train.batch_size=16"]
    run = train(tmp_path / "one", *source, "--config.train.num_steps=3")
    assert "is collapsing" not in capsys.readouterr().out
    page = report(run)
    assert "The test image, left of its reconstruction" in page.text
    assert "1 test image, measured in training" in page.text and "over 1 test image;" in page.text
    for wrong in ("1 test images", "Interpolation", "has collapsed", "tell images apart"):
        assert wrong not in page.text
    assert "interpolation" not in page.data["pictures"]


def test_own_parts_are_called_as_in_the_config(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs" / "parts.md").read_text()
    (code,) = re.findall(r"```python\n# cauchy\.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "cauchy.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--config.model.likelihood=cauchy:Cauchy", "--config.data.binarization=none"]
    page = report(train(tmp_path / "own", *flags, "--config.train.num_steps=3"), arguments=("--allow_custom",))
    assert "p(x|z) cauchy:Cauchy(scale=0.1), q(z|x) diagonal_gaussian" in page.text
    assert "The mean of p(x|z) is that of Cauchy, which a page can't compute, so pictures were" in page.text
    assert page.data["pictures"]["decoder"] is None
