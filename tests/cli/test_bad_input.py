"""Bad input of any kind gives one line with the cause and what to do, and exit status 2; nothing is written."""

import os
import pathlib
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from on_disk import contents
from PIL import Image
from tiny_runs import MODEL, TINY

from vae_jax.cli import flags, main, train
from vae_jax.runs import RunFolder, checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
# A command, and what its message must name: the cause first, then what to do.
COMMANDS = """
trian | 'trian' | train
--workdri=x | --workdri | did you mean 'workdir'
sample --workdir=x --num_image=3 | --num_image | did you mean 'num_images'
train x | 'x' | --name=value
parts iaff | 'iaff' | did you mean 'iaf'
sample --config.model.posterior.flows=2 | takes no config

--config.train.batchsize=3 | train.batchsize | train.batch_size
--config.trian.batch_size=3 | trian.batch_size | train.batch_size
--config.model=3 | 'model' | model.
--config.train.batch_size=many | train.batch_size | many
--config.train.learning_rate=fast | train.learning_rate | fast
--config.train.batch_size=2.5 | train.batch_size | 2.5
--config.objective.analytic_kl=maybe | analytic_kl | maybe
--config.model.network.hidden=wide | 'hidden' | wide | (400,)
--config.model.network.hidden=(3.5,) | 'hidden' | 3.5 | whole numbers
--config.model.network.hidden=(3, | model.network.hidden | can't be read
--config.train.batch_size= | train.batch_size
--config.train.batch_size=0 | train.batch_size | 0 | at least 1
--config.model.latents=0 | model.latents | at least 1
--config.model.network.hidden=(8,0) | 'hidden' | at least 1
--config.train.num_steps=-1 | train.num_steps | at least 0
--config.seed=4294967296 | seed | 4294967296 | below
--config.seed=-1 | seed | -1 | at least 0
--config.data.seed=1208925819614629174706176 | data.seed
--config.train.learning_rate=nan | learning_rate | nan
--config.train.learning_rate=inf | learning_rate | inf
--config.train.ema_decay=1.0 | ema_decay | below 1
--config.data.validation_fraction=0.9999 | images | leaves none to train on
--config.train.batch_size=5000 | 5000 | 1366 | use at most
--config.data.source=digit | data.source | 'digit' | digits
--config.model.posterior=iaf(flowz=2) | 'iaf' | 'flowz' | did you mean 'flows'
--config.model.posterior=iaf(flows=two) | 'flows' | 'two' | a whole number
--config.model.posterior=iaf(flows=-1) | 'flows' | -1 | at least 1
--config.model.posterior=iaf( | model.posterior | can't be read | in quotes
--config.model.posterior=iaf(2**9999) | model.posterior | no name
--config.model.posterior=iaf(flows=2**9999) | 2 ** 9999 | is no number
--config.model.posterior=iaf(flows=1e400) | isn't finite
--config.model.posterior=iaf(flows=__import__('os').remove('file')) | __import__ | is no number
--config.model.network=mpl | model.network | 'mpl' | mlp
--config.model.likelihood=bernouli | model.likelihood | bernoulli
--config.model.posterior=diagonal | model.posterior | diagonal_gaussian
--config.model.prior=normal | model.prior | standard_normal
--config.model.network.activation=rellu | 'activation' | did you mean 'relu'
--config.model.network.dtype=float16 | dtype | bfloat16
--config.objective=ebo | objective | elbo
--config.objective.beta=4.0 | 'elbo' has no setting 'beta' | num_samples=1
--config.objective=wake_sleep(num_samples=5) | no setting 'num_samples' | none
--config.train.optimizer=adamm | train.optimizer | adam
--config.train.schedule=cosin | train.schedule | cosine
--config.data.binarization=dynamc | data.binarization | dynamic
--config.data.binarization=none | bernoulli | gaussian(learned=True)
--config.model.network=nowhere.at_all:network | no module 'nowhere' | PYTHONPATH
--config.model.prior=math:sqrt | model.prior | math
--config.model.prior=conditional_gaussian | depends on a context
--config.model.network=conv(spatial=True) --config.model.prior=realnvp | 'realnvp' | 2×2×10 | spatial=False

--config.data.source=tfds --config.data.name=mnits --config.data.dir=empty | mnits | mnist
--config.data.source=npz | --config.data.path
--config.data.source=npz --config.data.path=no.npz | no.npz
--config.data.source=npz --config.data.path=large.npz --config.data.labels=x.csv | data.labels has no effect
--config=configs/none.py | configs/none.py | --config=
--config=empty | 'empty'
--init_from=nowhere | nowhere | no run
--workdir=new --init_from=run --config.model.latents=3 | run | config.model
--workdir=file | file | --workdir
--workdir=file/below | file/below | --workdir
--workdir=/proc/nowhere | /proc/nowhere | --workdir
--workdir=thesis | thesis | another --workdir
--workdir=run | model.latents: 2 -> 10 | --workdir

evaluate | workdir
evaluate --workdir=nowhere | nowhere | holds no run | train first
diagnose --workdir=nowhere | nowhere | holds no run
sample --workdir=nowhere | nowhere | holds no run
export --workdir=nowhere --output=new | nowhere | holds no run
report | no run is named
report --workdir=nowhere | holds no run
report --workdir=run --workdir=empty/../run | name each run once
evaluate --workdir=run --split=tset | no split 'tset' | test
evaluate --workdir=run --checkpoint=7 | '7' | 6, 12
diagnose --workdir=run --replica=1 | replica 1
evaluate --workdir=run --num_samples=0 | num_samples | 0
diagnose --workdir=run --num_images=1 | num_images
diagnose --workdir=run --features=inception | random_convolutions
sample --workdir=run --num_images=0 | num_images | 0
sample --num_images=1e3 | --num_images=1e3 | not an integer
sample --workdir=run --show=median | median | mean
sample --workdir=run --seed=99999999999999999999 | seed | 4294967295
sample --workdir=run --seed=-1 | seed | -1
sample --workdir=run --manifold --num_images=10 | 10 | 9 or 16
sample --workdir=run --label=3 | class 3 | isn't conditional
sample --workdir=run --context=1 | leave --context out
sample --workdir=run --output=/proc/nowhere.png | /proc/nowhere.png
decode --label=abc | --label=abc | not an integer
decode --workdir=run | add --latents=FILE
decode --workdir=run --latents=absent.npy | No such file
decode --workdir=run --latents=text.npz | can't be read as latents
decode --workdir=run --latents=large.npz | it holds images, but not z or mean
encode --workdir=run --input=empty | there are no images
score --workdir=run --input=absent | not found
interpolate --workdir=run --input=large.npz | needs (N, 8, 8, 1)
encode --workdir=run --input=no_image.npz | images have shape (0, 8, 8)
score --workdir=run --input=one.npz --split=test | --input and --split
interpolate --workdir=run --input=one.npz | needs two images or more
interpolate --workdir=run --between=0 | needs two images
interpolate --workdir=run --between=0,9999 | no image '9999'
encode --workdir=run --input=pictures --noskip_unreadable | cut.png | mend or remove it
encode --workdir=run --output=out.txt | out.txt' but must end in .npz
score --workdir=run --output=out.txt | out.txt' but must end in .csv
sample --workdir=run --output=out.txt | out.txt' but must end in .png
report --workdir=run --output=out.txt | out.txt' but must end in .html
benchmark --output=out.txt | out.txt' but must end in .json
decode --workdir=run --latents=wide.npy --output=out.txt | out.txt' but must end in .png or .npz
export --workdir=run | --output=
export --workdir=run --output=file | 'file' has files in it, or is a file | --output
export --workdir=run --output=thesis | 'thesis' has files in it | --output
export --workdir=run --output=file/exported | file | --output
export --workdir=run --output=/proc/exported | /proc | --output
benchmark --image_shape=28x28 | 28x28 | --image_shape=28,28,1
benchmark --image_shape=0,28,1 | 0,28,1 | --image_shape=
benchmark --image_shape=4,4,1 --num_images=5 | batch_size is 64 | 5
benchmark --repeats=0 | repeats
benchmark --output=file/benchmark.json | file | --output

evaluate --workdir=run --num_samples=2147483648 | --num_samples | below 2^31
sample --workdir=run --num_images=999999999999999999999999999999 | --num_images | below 2^31
sample --workdir=run --num_images=2147483647 | images take | of memory
interpolate --workdir=run --steps=2147483647 | images take | of memory
benchmark --image_shape=99999,99999,3 | images take | of memory
"""
CASES = [line.split(" | ") for line in COMMANDS.splitlines() if line]
CASES = [(command.split(), words) for command, *words in CASES] + [
    (["--workdir=runs/p\udcff5"], [r"/p\xff5' is not UTF-8"]),
    (["--config.model.posterior=" + "-" * 200_000], ["model.posterior", "4096 characters"]),
    (["--config.model.posterior=" + "-" * 999], ["model.posterior", "can't be read"]),
    (["--config.model.posterior=iaf(" + "flows=1, " * 200 + ")"], ["longer than 1000"]),
    (["export", "--workdir=run", f"--output={'x' * 300}"], ["can't be used", "too long"]),
    (["export", "--workdir=run", "--output=new", "--license=mit\ntags: []"], ["--license", "apache-2.0"]),
]
LATENTS = {
    "wide": (np.zeros((5, 3)), "must be finite numbers [N, 2]"),
    "none": (np.zeros((0, 2)), "N at least 1"),
    "one_axis": (np.zeros(2), "[N, 2]"),
    "nan": (np.full((1, 2), np.nan), "must be finite numbers"),
    "beyond_float32": (np.full((3, 2), 1e300), "must be finite numbers"),
    "complex": (np.zeros((3, 2), complex), "real numbers"),
    "texts": (np.array([["a", "b"]]), "real numbers"),
    "objects": (np.array([[None, {}]]), "can't be read as latents"),
}
CASES += [(["decode", "--workdir=run", f"--latents={name}.npy"], [words]) for name, (_, words) in LATENTS.items()]


@pytest.fixture(scope="module")
def place(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a run, and with files that are no good."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(finished, folder / "run")
    for name in ("empty", "thesis", "pictures"):
        (folder / name).mkdir()
    (folder / "file").write_text("not a folder")
    (folder / "thesis" / "chapter.tex").write_text("years of work")
    (folder / "text.npz").write_text("no archive")
    for name, shape in {"large": (2, 9, 9), "one": (1, 8, 8), "no_image": (0, 8, 8)}.items():
        np.savez(folder / f"{name}.npz", images=np.zeros(shape, np.uint8))
    for name, (z, _) in LATENTS.items():
        np.save(folder / f"{name}.npy", z)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "pictures" / "whole.png")
    (folder / "pictures" / "cut.png").write_bytes((folder / "pictures" / "whole.png").read_bytes()[:40])
    return folder


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(command)[:60] for command, _ in CASES])
def test_a_command_is_refused(
    arguments: list[str], words: list[str], place: pathlib.Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    message = refused(*arguments)
    assert [word for word in words if word not in message] == []


IMAGES = np.zeros((9, 4, 4), np.uint8)
ARCHIVES = [
    ({"images": IMAGES.astype(np.float32)}, ["data.binarization", "continuous", "none"]),
    ({"images": IMAGES, "observed": IMAGES > 0}, ["number 0 of images", "no value that is observed"]),
    ({"images": IMAGES > 0}, ["bool", "uint8"]),
    ({"images": IMAGES[:, 0, 0]}, ["(9,)", "[N, H, W]"]),
    ({"images": IMAGES[..., None, None]}, ["(9, 4, 4, 1, 1)", "[N, H, W]"]),
    ({"images": IMAGES[:0]}, ["(0, 4, 4)"]),
    ({"images": IMAGES[:, :0]}, ["(9, 0, 4)"]),
    ({"images": IMAGES[:1]}, ["1 image", "more images"]),
    ({"images": np.array([{}, None])}, ["images.npz", "np.savez"]),
    ({"x": IMAGES}, ["x", "images"]),
    ({"train_images": IMAGES}, ["test_images"]),
    ({"train_images": IMAGES, "test_images": IMAGES[:, 1:]}, ["one size"]),
    ({"images": IMAGES, "labels": np.zeros(8, np.int64)}, ["labels", "(8,)", "9"]),
    ({"images": IMAGES, "labels": np.zeros(9)}, ["labels", "float64", "whole numbers"]),
]


@pytest.mark.parametrize(("arrays", "words"), ARCHIVES)
def test_wrong_arrays_are_refused(arrays: dict[str, np.ndarray], words: list[str], refused) -> None:
    np.savez("images.npz", **arrays)
    message = refused("--config.data.source=npz", "--config.data.path=images.npz")
    assert [word for word in words if word not in message] == []


def changed_archive() -> bytes:
    np.savez_compressed("whole.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    content = bytearray(pathlib.Path("whole.npz").read_bytes())
    content[len(content) // 2] ^= 255
    return bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"text", pickle.dumps([1, 2]), b"PK\x03\x04 cut off", None], ids=lambda content: repr(content)[:12]
)
def test_a_file_that_is_no_archive_is_refused(content: bytes | None, refused) -> None:
    pathlib.Path("images.npz").write_bytes(changed_archive() if content is None else content)
    assert "images.npz" in refused("--config.data.source=npz", "--config.data.path=images.npz")


DICT = "import ml_collections\n\ndef get_config():\n    return ml_collections.ConfigDict({{'train': {{{}}}}})\n"
CONFIG_FILES = [
    *("def get_config(:\n", "x = 1\n", "import nothing_of_that_name\n", "\0", "def get_config():\n    return None\n"),
    *(
        "def get_config():\n    raise KeyError('lost')\n",
        DICT.format("'batchsize': 3"),
        DICT.format("'batch_size': 'many'"),
    ),
]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections calls it
@pytest.mark.parametrize("content", CONFIG_FILES)
def test_a_broken_config_file_is_refused(content: str, refused) -> None:
    # An earlier file has nothing to do with it.
    flags.parse(train, [f"--config={REPOSITORY / 'configs' / 'digits.py'}"])
    pathlib.Path("mine.py").write_text(content)
    message = refused("--config=mine.py")
    assert "mine.py" in message or "of the config file" in message or "train.batch" in message


def delete(path: pathlib.Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def lengthen(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def write(content: str) -> Callable[[pathlib.Path], object]:
    return lambda path: path.write_text(content)


def replace(old: str, new: str) -> Callable[[pathlib.Path], object]:
    def change(path: pathlib.Path) -> None:
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))

    return change


TRAIN = ["train", *TINY]
DAMAGE = [
    *(("config.json", write(content), ["evaluate"], []) for content in ("", "{", "[]", '{"model": {"latent": 3}}')),
    ("config.json", write("{"), TRAIN, []),
    ("manifest.json", write("{"), TRAIN, ["manifest.json"]),
    ("config.json", delete, TRAIN, ["restore that file"]),
    ("config.json", replace('"latents": 2', '"latents": 3'), ["sample"], ["another model", "restore the run's own"]),
    ("config.json", replace('_fraction": 0.05', '_fraction": 0.0'), ["evaluate", "--split=validation"], ["_fraction"]),
    ("checkpoints/6/checkpoint.json", delete, ["sample", "--checkpoint=best"], ["6", "is damaged"]),
    ("checkpoints/12/state/_METADATA", lengthen, ["evaluate"], ["checkpoints/12", "is damaged", "delete"]),
    ("checkpoints", delete, ["sample"], ["train first"]),
    ("checkpoints", delete, [*TRAIN, "--config.model.latents=3"], ["another config"]),
]


@pytest.mark.parametrize(("file", "change", "command", "words"), DAMAGE)
def test_a_damaged_run_is_refused(
    file: str, change: Callable, command: list[str], words: list[str], run: pathlib.Path, refused
) -> None:
    change(run / file)
    verb, *rest = command
    message = refused(verb, f"--workdir={run}", *rest)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("metrics.jsonl", "can't be read (not a regular file); make it readable"), ("tensorboard", "can't be written")],
)
def test_a_file_that_cannot_be_written_harms_no_checkpoint(
    name: str, words: str, run: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    delete(run / name)
    (run / name).mkdir() if name == "metrics.jsonl" else (run / name).write_text("")
    saved = contents(run / "checkpoints")
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={run}", *TINY, "--config.train.num_steps=13"])
    errors = capsys.readouterr().err
    assert caught.value.code == 2 and errors.startswith(f"vae-jax: error: {run}") and errors.count("\n") == 1
    assert words in errors and contents(run / "checkpoints") == saved


def test_a_folder_that_another_process_trains_in_is_refused(refused, run: pathlib.Path) -> None:
    with RunFolder(run).locked():
        message = refused(f"--workdir={run}", *TINY)
    assert "another process" in message and "choose another --workdir" in message


def test_best_is_refused_without_validation_images(refused) -> None:
    few = ["--config.train.num_steps=1", "--config.data.validation_fraction=0"]
    main(["--workdir=new", *MODEL, *few])
    assert checkpoints.listing(pathlib.Path("new", "checkpoints"))[0].score is None
    message = refused("sample", "--workdir=new", "--checkpoint=best")
    assert "best" in message and "validation_fraction" in message


@pytest.mark.parametrize("name", ["a" * 300, "/".join(["a" * 200] * 30)], ids=["long", "deep"])
@pytest.mark.parametrize("flag", ["train --workdir", "sample --workdir=run --output", "score --workdir=run --input"])
def test_a_name_that_is_too_long_is_refused(
    name: str, flag: str, place: pathlib.Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    line = refused(*f"{flag}={name}.png".split())
    assert any(words in line for words in ("File name too long", "there is no", "a text of at most")), line


def test_data_that_is_not_there_is_refused_without_a_network(refused, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "status", "out", "errors"),
    [
        ("--config.model.latent=3", 2, "", "vae-jax: error: config has no field 'model.latent'; did you mean"),
        # Characters that the locale lacks are replaced.
        ("evaluate --num_images=3 --workdir={run}", 0, " ? ", ""),
    ],
)
def test_a_shell_sees_status_and_lines(arguments: str, status: int, out: str, errors: str, run: pathlib.Path) -> None:
    command = f"{shlex.quote(sys.executable)} {REPOSITORY / 'main.py'} {arguments.format(run=shlex.quote(str(run)))}"
    given = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(["sh", "-c", command], env=given, capture_output=True, text=True, timeout=120)
    assert answer.returncode == status and out in answer.stdout
    assert answer.stderr.startswith(errors) and answer.stderr.count("\n") == bool(errors)
