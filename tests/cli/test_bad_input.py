"""Bad input of any kind gives one line with the cause and what to do, and exit status 2; no file is lost."""

import json
import os
import pathlib
import pickle
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from on_disk import contents

from vae_jax.cli import flags, main, train
from vae_jax.runs import RunFolder, checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
TINY = ["--config.model.network.hidden=(4,)", "--config.model.latents=2", "--config.train.report=False"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout, because the default of --workdir is relative."""
    monkeypatch.chdir(tmp_path)


SAME = ["--config.train.num_steps=2", "--config.train.checkpoint_every=1", "--config.data.validation_fraction=0", *TINY]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of two checkpoints and no validation images."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    main([f"--workdir={workdir}", *SAME])
    return workdir


@pytest.fixture
def workdir(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the run that a test may damage."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


# The arguments, and what the message must name: the cause first, then what to do.
COMMANDS = {
    "unknown verb": (["trian"], ["'trian'", "train"]),
    "unknown flag": (["--workdri=x"], ["--workdri", "--workdir"]),
    "unknown flag of a verb": (["sample", "--workdir=x", "--num_image=3"], ["--num_image", "--num_images"]),
    "no flag": (["train", "x"], ["'x'", "--name=value"]),
    "unknown field": (["--config.train.batchsize=3"], ["train.batchsize", "train.batch_size"]),
    "unknown section": (["--config.trian.batch_size=3"], ["trian.batch_size", "train.batch_size"]),
    "section as a field": (["--config.model=3"], ["'model'", "model."]),
    "text for a number": (["--config.train.batch_size=many"], ["train.batch_size", "many"]),
    "text for a float": (["--config.train.learning_rate=fast"], ["train.learning_rate", "fast"]),
    "fraction for a whole number": (["--config.train.batch_size=2.5"], ["train.batch_size", "2.5"]),
    "text for a truth": (["--config.objective.analytic_kl=maybe"], ["analytic_kl", "maybe"]),
    "text for a tuple": (["--config.model.network.hidden=wide"], ["'hidden'", "wide", "(400,)"]),
    "fraction in a tuple": (["--config.model.network.hidden=(3.5,)"], ["'hidden'", "3.5", "whole numbers"]),
    "unclosed tuple": (["--config.model.network.hidden=(3,"], ["model.network.hidden", "can't be read"]),
    "no value": (["--config.train.batch_size="], ["train.batch_size"]),
    "batch of zero": (["--config.train.batch_size=0"], ["train.batch_size", "0", "at least 1"]),
    "negative batch": (["--config.train.batch_size=-3"], ["train.batch_size", "-3", "at least 1"]),
    "no latents": (["--config.model.latents=0"], ["model.latents", "at least 1"]),
    "layer without width": (["--config.model.network.hidden=(8,0)"], ["'hidden'", "at least 1"]),
    "no epochs": (["--config.train.num_epochs=0"], ["train.num_epochs", "at least 1"]),
    "negative steps": (["--config.train.num_steps=-1"], ["train.num_steps", "at least 0"]),
    "log never": (["--config.train.log_every=0"], ["train.log_every", "at least 1"]),
    # JAX keys have seeds of 32 bits: a longer one would stand for the same run as a shorter one.
    "seed of 33 bits": (["--config.seed=4294967296"], ["seed", "4294967296", "below"]),
    "negative seed": (["--config.seed=-1"], ["seed", "-1", "at least 0"]),
    "seed of 80 bits": (["--config.seed=1208925819614629174706176"], ["seed", "1208925819614629174706176"]),
    "data seed of 80 bits": (["--config.data.seed=1208925819614629174706176"], ["data.seed"]),
    "rate of nan": (["--config.train.learning_rate=nan"], ["learning_rate", "nan"]),
    "rate of infinity": (["--config.train.learning_rate=inf"], ["learning_rate", "inf"]),
    "decay of 1": (["--config.train.ema_decay=1.0"], ["ema_decay", "below 1"]),
    "all for validation": (["--config.data.validation_fraction=1.0"], ["validation_fraction", "below 1"]),
    "nothing left to train on": (["--config.data.validation_fraction=0.9999"], ["images", "leaves none to train on"]),
    "batch larger than the data": (["--config.train.batch_size=5000"], ["5000", "1366", "use at most"]),
    "unknown source": (["--config.data.source=digit"], ["data.source", "'digit'", "digits"]),
    "unknown setting": (["--config.model.posterior=iaf(flowz=2)"], ["'iaf'", "'flowz'", "did you mean 'flows'"]),
    "name for a number": (["--config.model.posterior=iaf(flows=two)"], ["'flows'", "'two'", "a whole number"]),
    "too few flows": (["--config.model.posterior=iaf(flows=-1)"], ["'flows'", "-1", "at least 1"]),
    "part left open": (["--config.model.posterior=iaf("], ["model.posterior", "can't be read", "in quotes"]),
    "setting without a name": (["--config.model.posterior=iaf(2**9999)"], ["model.posterior", "no name"]),
    "power for a number": (["--config.model.posterior=iaf(flows=2**9999)"], ["2 ** 9999", "is no number"]),
    "infinite setting": (["--config.model.posterior=iaf(flows=1e400)"], ["isn't finite"]),
    "code": (
        ["--config.model.posterior=iaf(flows=__import__('os').system('touch ran'))"],
        ["__import__", "is no number"],
    ),
    "minus signs": (["--config.model.posterior=" + "-" * 200_000], ["model.posterior", "4096 characters"]),
    "some minus signs": (["--config.model.posterior=" + "-" * 999], ["model.posterior", "can't be read"]),
    "long text": (["--config.model.posterior=iaf(" + "flows=1, " * 200 + ")"], ["longer than 1000"]),
    "map of latents with a flat prior": (
        ["--config.model.network=conv(spatial=True)", "--config.model.prior=realnvp"],
        ["model.prior 'realnvp'", "2×2×10", "spatial=False"],
    ),
    "setting for a verb without a config": (["sample", "--config.model.posterior.flows=2"], ["takes no config"]),
    "unknown part": (["parts", "iaff"], ["'iaff'", "did you mean 'iaf'"]),
    "unknown network": (["--config.model.network=mpl"], ["model.network", "'mpl'", "mlp"]),
    "unknown likelihood": (["--config.model.likelihood=bernouli"], ["model.likelihood", "bernoulli"]),
    "unknown posterior": (["--config.model.posterior=diagonal"], ["model.posterior", "diagonal_gaussian"]),
    "unknown prior": (["--config.model.prior=normal"], ["model.prior", "standard_normal"]),
    "unknown activation": (["--config.model.network.activation=rellu"], ["'activation'", "did you mean 'relu'"]),
    "unknown objective": (["--config.objective=ebo"], ["objective", "elbo"]),
    "beta of no effect": (["--config.objective.beta=4.0"], ["objective 'elbo' has no setting 'beta'", "num_samples=1"]),
    "gradient of no effect": (
        ["--config.objective=iwae", "--config.objective.gradient=score_function"],
        ["objective 'iwae' has no setting 'gradient'"],
    ),
    "samples of no effect": (
        ["--config.objective=wake_sleep", "--config.objective.num_samples=5"],
        ["objective 'wake_sleep' has no setting 'num_samples'", "none"],
    ),
    "unknown optimizer": (["--config.train.optimizer=adamm"], ["train.optimizer", "adam"]),
    "unknown schedule": (["--config.train.schedule=cosin"], ["train.schedule", "cosine"]),
    "unknown binarization": (["--config.data.binarization=dynamc"], ["data.binarization", "dynamic"]),
    "grey pixels for bernoulli": (["--config.data.binarization=none"], ["bernoulli", "gaussian(learned=True)"]),
    "member that can't be imported": (["--config.model.network=nowhere:Net"], ["model.network", "nowhere"]),
    "unknown data set": (
        ["--config.data.source=tfds", "--config.data.name=mnits", "--config.data.dir=empty"],
        ["mnits", "mnist"],
    ),
    "npz without a path": (["--config.data.source=npz"], ["--config.data.path"]),
    "npz that isn't there": (["--config.data.source=npz", "--config.data.path=no.npz"], ["no.npz"]),
    "config that isn't there": (["--config=configs/none.py"], ["configs/none.py", "--config="]),
    "init from nowhere": (["--init_from=nowhere"], ["nowhere", "no run"]),
    "evaluate without a folder": (["evaluate"], ["workdir"]),
    "evaluate without a run": (["evaluate", "--workdir=nowhere"], ["nowhere", "train first"]),
    "sample without a run": (["sample", "--workdir=nowhere"], ["nowhere", "train first"]),
    "reconstruct without a run": (["reconstruct", "--workdir=nowhere"], ["nowhere", "train first"]),
    "no importance samples": (["evaluate", "--workdir=x", "--num_samples=0"], ["num_samples", "0"]),
    "no samples": (["sample", "--workdir=x", "--num_images=0"], ["num_images", "0"]),
    "unknown way to show": (["sample", "--workdir=x", "--show=median"], ["median", "mean"]),
    "long seed of samples": (["sample", "--workdir=x", "--seed=99999999999999999999"], ["seed", "4294967295"]),
    "text for a label": (["decode", "--label=abc"], ["--label=abc", "not a number"]),
    "text for a count": (["sample", "--num_images=1e3"], ["--num_images=1e3", "not a number"]),
    "negative seed of samples": (["sample", "--workdir=x", "--seed=-1"], ["seed", "-1"]),
}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["--manifold", "--num_images=10"], ["10", "9 or 16"]), (["--label=3"], ["class 3", "isn't conditional"])],
)
def test_samples_that_the_model_cannot_give(
    arguments: list[str], names: list[str], workdir: pathlib.Path, refused
) -> None:
    message = refused("sample", f"--workdir={workdir}", *arguments)
    assert [name for name in names if name not in message] == []


@pytest.mark.parametrize(("arguments", "names"), COMMANDS.values(), ids=COMMANDS)
def test_arguments(arguments: list[str], names: list[str], refused) -> None:
    message = refused(*arguments)
    assert [name for name in names if name not in message] == []


ARCHIVES = {
    "floats": ({"images": np.zeros((9, 4, 4), np.float32)}, ["data.binarization", "continuous", "none"]),
    "nothing observed": (
        {"images": np.zeros((9, 4, 4), np.uint8), "observed": np.zeros((9, 4, 4), bool)},
        ["number 0 of images", "no value that is observed"],
    ),
    "truths": ({"images": np.zeros((9, 4, 4), bool)}, ["bool", "uint8"]),
    "one axis": ({"images": np.zeros(9, np.uint8)}, ["(9,)", "[N, H, W]"]),
    "five axes": ({"images": np.zeros((9, 4, 4, 1, 1), np.uint8)}, ["(9, 4, 4, 1, 1)", "[N, H, W]"]),
    "no images": ({"images": np.zeros((0, 4, 4), np.uint8)}, ["(0, 4, 4)"]),
    "no pixels": ({"images": np.zeros((9, 0, 4), np.uint8)}, ["(9, 0, 4)"]),
    "one image": ({"images": np.zeros((1, 4, 4), np.uint8)}, ["1 image", "more images"]),
    "objects": ({"images": np.array([{}, None])}, ["images.npz", "np.savez"]),
    "other names": ({"x": np.zeros((9, 4, 4), np.uint8)}, ["x", "images"]),
    "only training images": ({"train_images": np.zeros((9, 4, 4), np.uint8)}, ["test_images"]),
    "two sizes": (
        {"train_images": np.zeros((9, 4, 4), np.uint8), "test_images": np.zeros((9, 4, 5), np.uint8)},
        ["one size"],
    ),
    "labels for others": (
        {"images": np.zeros((9, 4, 4), np.uint8), "labels": np.zeros(8, np.int64)},
        ["labels", "(8,)", "9"],
    ),
    "labels that aren't whole": (
        {"images": np.zeros((9, 4, 4), np.uint8), "labels": np.zeros(9)},
        ["labels", "float64", "whole numbers"],
    ),
}


@pytest.mark.parametrize(("arrays", "names"), ARCHIVES.values(), ids=ARCHIVES)
def test_images_in_an_archive(arrays: dict[str, np.ndarray], names: list[str], refused, tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "images.npz", **arrays)
    message = refused("--config.data.source=npz", "--config.data.path=images.npz")
    assert [name for name in names if name not in message] == []


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2]), b"PK\x03\x04 cut off"])
def test_file_that_is_not_an_archive(content: bytes, refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "images.npz").write_bytes(content)
    message = refused("--config.data.source=npz", "--config.data.path=images.npz")
    assert "images.npz" in message and "np.savez" in message


def test_single_array_is_not_an_archive(refused, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((4, 8, 8), np.uint8))
    message = refused("--config.data.source=npz", f"--config.data.path={tmp_path / 'one.npy'}")
    assert "np.savez" in message


def test_truncated_archive(refused, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "whole.npz", images=rng.integers(0, 256, (40, 8, 8), np.uint8))
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    whole[len(whole) // 2] ^= 255
    (tmp_path / "images.npz").write_bytes(whole)
    assert "images.npz" in refused("--config.data.source=npz", "--config.data.path=images.npz")


CONFIG_FILES = {
    "wrong syntax": "def get_config(:\n",
    "no get_config": "x = 1\n",
    "unknown import": "import nothing_of_that_name\n\ndef get_config():\n    return None\n",
    "raises": "def get_config():\n    raise KeyError('lost')\n",
    "returns nothing": "def get_config():\n    return None\n",
    "unknown field": "import ml_collections\n\ndef get_config():\n"
    "    return ml_collections.ConfigDict({'train': {'batchsize': 3}})\n",
    "wrong type": "import ml_collections\n\ndef get_config():\n"
    "    return ml_collections.ConfigDict({'train': {'batch_size': 'many'}})\n",
    "no text": "\0",
}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections calls it
@pytest.mark.parametrize("content", CONFIG_FILES.values(), ids=CONFIG_FILES)
def test_broken_config_file(content: str, refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.py").write_text(content)
    message = refused("--config=mine.py")
    assert "mine.py" in message or "config file" in message or "train.batch" in message


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_config_file_does_not_see_an_earlier_one(refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "whole.py").write_text((REPOSITORY / "configs" / "digits.py").read_text())
    flags.parse(train, ["--config=whole.py"])
    (tmp_path / "mine.py").write_text(CONFIG_FILES["no get_config"])
    assert "mine.py" in refused("--config=mine.py")


def test_config_file_that_is_a_folder(refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "configs").mkdir()
    assert "'configs'" in refused("--config=configs")


@pytest.mark.parametrize("name", ["math:sqrt", "no_such_module:Part"])
@pytest.mark.parametrize(
    "field", ["model.network", "model.likelihood", "model.posterior", "model.prior", "objective.name"]
)
def test_custom_part_that_is_not_a_part(field: str, name: str, refused) -> None:
    message = refused(f"--config.{field}={name}")
    assert field in message and (name in message or "a Flax module is wanted" in message)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_folder_that_cannot_be_written(place: str, refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    message = refused(f"--workdir={place}", *TINY)
    assert place in message and "--workdir" in message


def test_folder_with_other_files(refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    message = refused("--workdir=thesis")
    assert "thesis" in message and "another --workdir" in message


def test_folder_of_a_run_that_never_trained_is_reused(workdir: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """A start that failed late leaves a config, perhaps for other images; the next start replaces it."""
    for name in ("checkpoints", "tensorboard", "images"):
        shutil.rmtree(workdir / name)
    (workdir / "metrics.jsonl").write_text("")
    images = workdir / "images.json"
    images.write_text(images.read_text().replace("8,", "9,", 1))
    main([f"--workdir={workdir}", *SAME, "--config.model.latents=3"])
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["latents"] == 3 and '"image_shape": [\n    8' in images.read_text()
    assert len(json.loads((workdir / "manifest.json").read_text())["starts"]) == 1
    assert "test ELBO" in capsys.readouterr().out


def test_folder_with_a_row_of_metrics_is_not_reused(refused, workdir: pathlib.Path) -> None:
    shutil.rmtree(workdir / "checkpoints")
    assert "another config" in refused(f"--workdir={workdir}", *SAME, "--config.model.latents=3")


def test_folder_of_another_config(refused, workdir: pathlib.Path) -> None:
    message = refused(f"--workdir={workdir}", "--config.model.latents=3", "--config.model.network.hidden=(4,)")
    assert "model.latents: 2 -> 3" in message and "--workdir" in message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', '{"model": {"latent": 3}}'])
def test_damaged_config_of_a_run(content: str, refused, workdir: pathlib.Path) -> None:
    (workdir / "config.json").write_text(content)
    refused("evaluate", f"--workdir={workdir}")
    refused(f"--workdir={workdir}")


def test_damaged_manifest_of_a_run(refused, workdir: pathlib.Path) -> None:
    (workdir / "manifest.json").write_text("{")
    assert "manifest.json" in refused(f"--workdir={workdir}", *SAME)


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "metrics.jsonl": "can't be read (not a regular file); make it readable",
        "tensorboard": "can't be written",
    }.items(),
)
def test_file_of_a_run_that_cannot_be_written(
    name: str, words: str, workdir: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(workdir / "tensorboard")
    if name == "metrics.jsonl":
        (workdir / "metrics.jsonl").unlink()
        (workdir / "metrics.jsonl").mkdir()
    else:
        (workdir / "tensorboard").write_text("")
    saved = contents(workdir / "checkpoints")
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={workdir}", *SAME, "--config.train.num_steps=3"])
    errors = capsys.readouterr().err
    assert caught.value.code == 2
    assert errors.startswith(f"vae-jax: error: {workdir}") and errors.count("\n") == 1
    assert words in errors
    assert contents(workdir / "checkpoints") == saved


def test_two_processes_in_one_folder(refused, workdir: pathlib.Path) -> None:
    with RunFolder(workdir).locked():
        message = refused(f"--workdir={workdir}", *SAME)
    assert "another process" in message and "choose another --workdir" in message


def test_checkpoints_without_their_config(refused, workdir: pathlib.Path) -> None:
    (workdir / "config.json").unlink()
    assert "restore that file" in refused(f"--workdir={workdir}", *SAME)


def test_config_of_another_model(refused, workdir: pathlib.Path) -> None:
    config = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(config.replace('"latents": 2', '"latents": 3'))
    message = refused("sample", f"--workdir={workdir}")
    assert "another model" in message and "restore the run's own config.json" in message


def test_diverged_run_ends_and_writes_no_nan(workdir: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    folder = workdir.with_name("diverged")
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={folder}", *SAME, "--config.train.learning_rate=1e30", "--config.train.num_steps=5"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "diverged" in message and "--config.train.learning_rate" in message
    assert "NaN" not in (folder / "metrics.jsonl").read_text()


def test_run_on_an_npz_file_opens_from_any_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("mine.npz", images=np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8))
    main(
        [
            "--workdir=run",
            "--config.data.source=npz",
            "--config.data.path=mine.npz",
            *SAME,
            "--config.train.batch_size=8",
        ]
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main(["sample", "--workdir=../run"])


def test_unknown_split(refused, workdir: pathlib.Path) -> None:
    message = refused("evaluate", f"--workdir={workdir}", "--split=tset")
    assert "'tset'" in message and "test" in message


def test_split_without_images(refused, workdir: pathlib.Path) -> None:
    message = refused("evaluate", f"--workdir={workdir}", "--split=validation")
    assert "validation" in message and "validation_fraction" in message


def test_unknown_checkpoint(refused, workdir: pathlib.Path) -> None:
    message = refused("evaluate", f"--workdir={workdir}", "--checkpoint=7")
    assert "'7'" in message and "1, 2" in message


def test_best_checkpoint_without_validation_images(refused, workdir: pathlib.Path) -> None:
    message = refused("sample", f"--workdir={workdir}", "--checkpoint=best")
    assert "best" in message and "validation_fraction" in message


def test_run_without_checkpoints(refused, workdir: pathlib.Path) -> None:
    shutil.rmtree(workdir / "checkpoints")
    assert "train first" in refused("sample", f"--workdir={workdir}")


def test_damaged_checkpoint(refused, workdir: pathlib.Path) -> None:
    newest = checkpoints.choose(workdir / "checkpoints", "latest")
    victim = newest.folder / "state" / sorted(newest.files)[-1]
    victim.write_bytes(victim.read_bytes() + b"\0")
    message = refused("evaluate", f"--workdir={workdir}")
    assert str(newest.folder) in message and "damaged" in message and "delete" in message


@pytest.mark.parametrize("other", ["latents=3", "network=mlp(hidden=(8,8,8,8))"])
def test_init_from_another_model(other: str, refused, workdir: pathlib.Path) -> None:
    message = refused("--workdir=new", f"--init_from={workdir}", f"--config.model.{other}")
    assert str(workdir) in message and "config.model" in message


def test_picture_that_cannot_be_written(refused, workdir: pathlib.Path) -> None:
    assert "/proc/nowhere.png" in refused("sample", f"--workdir={workdir}", "--output=/proc/nowhere.png")


@pytest.mark.long
def test_shell_sees_one_line_and_status_2(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(REPOSITORY / "main.py"), "--config.model.latent=3"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "vae-jax: error: config has no field 'model.latent'; did you mean 'model.latents'?\n"
    assert contents(tmp_path) == {}


TOO_MUCH = {
    "samples": (["sample", "--num_images=1000000000000"], ["--num_images", "below 2^31"]),
    "samples of 30 digits": (["sample", f"--num_images={'9' * 30}"], ["--num_images", "below 2^31"]),
    "samples beyond the memory": (["sample", f"--num_images={2**31 - 1}"], ["images take", "of memory"]),
    "steps between": (["interpolate", f"--steps={2**31 - 1}"], ["images take", "of memory"]),
    "draws": (["evaluate", f"--num_samples={2**31}"], ["--num_samples", "below 2^31"]),
    "random images": (["benchmark", "--image_shape=99999,99999,3"], ["images take", "of memory"]),
}


@pytest.mark.parametrize(("arguments", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_large_numbers(arguments: list[str], words: list[str], finished: pathlib.Path, refused) -> None:
    line = refused(*arguments, *([] if arguments[0] == "benchmark" else [f"--workdir={finished}"]))
    assert all(word in line for word in words)


@pytest.mark.parametrize("name", ["a" * 300, "/".join(["a" * 200] * 30)])
def test_too_long_names(name: str, finished: pathlib.Path, refused) -> None:
    run = f"--workdir={finished}"
    commands = [
        *([verb, f"--workdir={name}"] for verb in ("train", "evaluate", "report")),
        *(["sample", run, f"--output={name}.png"], ["score", run, f"--input={name}"]),
        *([f"--config={name}"], [f"--init_from={name}"]),
        ["--config.data.source=npz", f"--config.data.path={name}"],
    ]
    for command in commands:
        line = refused(*command)
        assert any(words in line for words in ("File name too long", "there is no", "a text of at most")), line


def test_folder_name_that_is_not_utf8(refused) -> None:
    assert r"/p\xff5' is not UTF-8" in refused("--workdir=runs/p\udcff5")


def run_in_a_shell(line: str, workdir: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    program = f"{shlex.quote(sys.executable)} {shlex.quote(str(REPOSITORY / 'main.py'))}"
    command = line.format(program=program, workdir=shlex.quote(str(workdir)))
    given = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | environment
    return subprocess.run(["sh", "-c", command], env=given, capture_output=True, text=True, timeout=120)


def test_characters_that_the_locale_lacks(finished: pathlib.Path) -> None:
    answer = run_in_a_shell("{program} evaluate --num_images=3 --workdir={workdir}", finished, PYTHONIOENCODING="ascii")
    assert answer.returncode == 0 and " ? " in answer.stdout, answer.stderr


def test_absent_data_without_a_network(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing answers
    for name in ("NO_PROXY", "no_proxy", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    command = ["--config.data.source=tfds", "--config.data.name=mnist", "--config.data.dir=empty"]
    refused(*command)
    # The second time nothing is imported: what is timed is the waiting, whatever else the machine does.
    began = time.monotonic()
    message = refused(*command)
    assert time.monotonic() - began < 10
    assert "mnist isn't in" in message and "empty" in message and "--config.data.dir" in message
