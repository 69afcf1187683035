"""A run, an export or a cache from somebody else: looked at without running anything of it, or refused in one line."""

import contextlib
import csv
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import struct
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from on_disk import contents
from PIL import Image

import vae_jax
from vae_jax.cli import main
from vae_jax.errors import UserError

# A thread of TensorStore goes on with what it can't read, when nobody waits for it any more.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]

VERBS = ("evaluate", "sample", "report", "reconstruct")
# What each does to a folder is watched from before these modules of a stranger could be imported.
EVIL = ("evil.py", "sitecustomize.py", "jax.py", "numpy.py", "vae_jax.py", "tensorflow.py")


class Watch:
    """Notes what audit events tell of: what was run, unpickled, or written outside a folder.

    Attributes:
        inside: The one folder that may be written to; None while nothing is watched.
        found: What happened.
    """

    def __init__(self) -> None:
        self.inside: pathlib.Path | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.inside is None:
            return
        if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork"):
            self.found.append(f"{event} {arguments}")
        elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith(str(self.inside.parent)):
            self.found.append(f"exec {arguments[0].co_filename}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and _writes(*arguments[1:3]):
            self._written(event, pathlib.Path(os.fsdecode(arguments[0])).resolve())
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "os.truncate", "os.chmod"):
            for each in arguments:
                if isinstance(each, str | bytes | os.PathLike):
                    path = pathlib.Path(os.fsdecode(each))
                    self._written(event, path.parent.resolve() / path.name)

    def _written(self, event: str, path: pathlib.Path) -> None:
        # What tests have compiled is kept for others.
        others = {os.devnull, os.environ["JAX_COMPILATION_CACHE_DIR"]}
        if not path.is_relative_to(self.inside.resolve()) and not {str(path), str(path.parent)} & others:
            self.found.append(f"{event} {path}")

    @contextlib.contextmanager
    def over(self, folder: pathlib.Path) -> Iterator[None]:
        """Watches; fails where anything was found."""
        self.found, self.inside = [], folder
        try:
            yield
        finally:
            self.inside = None
        assert self.found == []


def _writes(mode: str | None, flags: int | None) -> bool:
    return any(letter in mode for letter in "wxa+") if mode else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


_watch = Watch()


@pytest.fixture(scope="module")
def used(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run and what was exported of it."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(finished, place / "run")
    # What verbs compile and import, they do once: none of it belongs to a stranger's folder.
    for verb in VERBS:
        main([verb, f"--workdir={place / 'run'}"])
    main(["export", f"--workdir={place / 'run'}", f"--output={place / 'exported'}"])
    return place


@pytest.fixture
def given(used: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A copy of the run with modules of its own in it, where the user is standing."""
    folder = pathlib.Path(shutil.copytree(used / "run", tmp_path / "given"))
    for name in EVIL:
        (folder / name).write_text("import pathlib\npathlib.Path(__file__).with_name('was run').touch()\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "notes.txt").write_text("as it was")
    monkeypatch.chdir(folder)
    return folder


def edit(path: pathlib.Path, *keys: str, value: object) -> None:
    content = json.loads(path.read_text())
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(json.dumps(believable(content)))


def believable(content: dict) -> dict:
    """With the digest of itself, where it has one, as somebody writes it who wants to be believed."""
    if "digest" not in content:
        return content
    rest = {name: value for name, value in content.items() if name != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


def run(folder: pathlib.Path, capsys: pytest.CaptureFixture, verb: str, *arguments: str) -> str | None:
    """Runs a verb under watch; None if it does what it should, else its one line."""
    outside = contents(folder.parent / "outside")
    capsys.readouterr()
    status = 0
    with _watch.over(folder):
        try:
            main([verb, f"--workdir={folder}", *arguments])
        except SystemExit as end:
            status = end.code
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and "\x07" not in printed.out + printed.err
    assert contents(folder.parent / "outside") == outside
    assert not list(folder.parent.rglob("was run"))
    if status == 0:
        return None
    assert status == 2 and printed.err.startswith("vae-jax: error: ") and printed.err.count("\n") == 1
    return printed.err


def test_the_watch_sees_what_it_is_there_for(given: pathlib.Path, tmp_path: pathlib.Path) -> None:
    doings: dict[str, Callable[[], object]] = {
        "pickle.find_class": lambda: pickle.loads(pickle.dumps(Touch(tmp_path / "touched"))),
        "subprocess.Popen": lambda: __import__("subprocess").run(["true"]),
        "os.system": lambda: os.system("true"),
        "exec": lambda: exec(
            compile((given / "evil.py").read_text(), str(given / "evil.py"), "exec"), {"__file__": "x"}
        ),
        "open": lambda: (tmp_path / "outside" / "notes.txt").write_text("as it was"),
        "os.rename": lambda: (tmp_path / "outside" / "notes.txt").rename(tmp_path / "outside" / "notes.txt"),
    }
    for event, do in doings.items():
        with pytest.raises(AssertionError, match=event), _watch.over(given):
            do()


def test_strange_words_are_harmless(given: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Places that aren't needed, markup, and what a terminal would obey."""
    edit(given / "config.json", "data", "dir", value="../outside/\x1b]0;title\x07<script>alert(1)</script>\ud800")
    edit(given / "config.json", "data", "path", value="/etc/passwd")
    edit(given / "images.json", "class_names", value=[f"<img src=x onerror=alert({n})>\x1b[2J" for n in range(10)])
    edit(given / "manifest.json", "starts", value=[{"command": ["\x1b[2J", "<b>"], "time": {}, "data": []}])
    for verb in VERBS:
        assert run(given, capsys, verb) is None
    page = (given / "report.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    assert vae_jax.load(given).encode(np.zeros((1, 8, 8), np.uint8)).shape == (1, 2)


def test_unfinished_files_are_no_way_out(given: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Links that lie where a file is written before it has its name."""
    notes = given.parent / "outside" / "notes.txt"
    for name in (
        *(".probe.unfinished", ".evaluation.unfinished.json", ".report.unfinished.html", ".metrics.unfinished.jsonl"),
        *("images/.samples_mean.unfinished.png", "images/.sample_mean.unfinished.png"),
    ):
        (given / name).symlink_to(notes)
    for name in ("evaluation.json", "report.html"):
        (given / name).unlink(missing_ok=True)
        (given / name).symlink_to(notes)
    for verb in VERBS:
        assert run(given, capsys, verb) is None
    assert not (given / "evaluation.json").is_symlink()


@pytest.mark.parametrize("name", ["metrics.jsonl", "manifest.json"])
def test_devices_and_pipes_are_not_read(given: pathlib.Path, capsys: pytest.CaptureFixture, name: str) -> None:
    (given / name).unlink(missing_ok=True)
    (given / name).symlink_to("/dev/zero")
    first = run(given, capsys, "report")
    (given / name).unlink()
    os.mkfifo(given / name)
    # A page without curves would be no report of the run; the rest can be done without.
    for message in (first, run(given, capsys, "report")):
        assert (
            message is None if name != "metrics.jsonl" else message and "can't be read (not a regular file)" in message
        )


SHAPES = "image_shape, max_value and num_classes expected"
RECORD = "checkpoints/12/checkpoint.json"
HOSTILE = [
    ("config.json", ("model", "latents"), 10**9, "another model"),
    ("config.json", ("model", "latents"), 10**12, "model.latents"),
    ("config.json", ("model", "network"), f"mlp(hidden={(1,) * 400})", "longer than 1000"),
    ("config.json", ("model", "network"), f"mlp(hidden={(2**31 - 1,) * 3})", "another model"),
    ("config.json", ("model", "posterior"), f"iaf(flows={10**6})", "'flows'"),
    ("config.json", ("num_seeds",), 10**9, "num_seeds"),
    ("config.json", ("evaluate", "num_samples"), 10**12, "evaluate.num_samples"),
    ("config.json", ("objective",), f"beta(beta={10**400})", "'beta'"),
    ("config.json", ("model", "network"), "os:system", "--allow_custom"),
    ("config.json", ("model", "likelihood"), "evil:likelihood", "--allow_custom"),
    ("config.json", ("data", "source"), "evil:load", "--allow_custom"),
    ("config.json", ("data", "dir"), "x" * 10**6, "data.dir"),
    ("images.json", ("image_shape",), [10**6, 10**6, 3], SHAPES),
    ("images.json", ("image_shape",), [2**62, 2**62, 1], SHAPES),
    ("images.json", ("image_shape",), [float("inf"), 8, 1], "images.json can't be read"),
    ("images.json", ("num_classes",), 10**9, "images.json can't be read"),
    (RECORD, ("files",), {"../../../../outside/notes.txt": "0" * 64}, "missing"),
    (RECORD, ("step",), "12", "checkpoint.json"),
    (RECORD, ("files",), 7, "checkpoint"),
    (RECORD, ("arrays",), {"step": f"float32[{10**15}]"}, "model"),
]


@pytest.mark.parametrize(
    ("file", "keys", "value", "words"),
    HOSTILE,
    ids=[f"{'.'.join(keys)}={str(value)[:30]}" for _, keys, value, _ in HOSTILE],
)
def test_what_is_asked_for_is_refused(
    given: pathlib.Path, capsys: pytest.CaptureFixture, file: str, keys: tuple[str, ...], value: object, words: str
) -> None:
    edit(given / file, *keys, value=value)
    message = run(given, capsys, "evaluate", "--checkpoint=12")
    assert message is not None and words in message and len(message) < 1000
    with pytest.raises(UserError), _watch.over(given):
        vae_jax.load(given, checkpoint=12)


@pytest.mark.parametrize("content", [b"[" * 10**6, b"9" * 10**6, b"\xff\xfe"], ids=["nested", "digits", "no text"])
@pytest.mark.parametrize("name", ["config.json", "images.json", "checkpoints/12/checkpoint.json", "manifest.json"])
def test_json_that_is_none_is_refused(
    given: pathlib.Path, capsys: pytest.CaptureFixture, name: str, content: bytes
) -> None:
    (given / name).write_bytes(content)
    message = run(given, capsys, "sample", "--checkpoint=12")
    assert (message is None) == (name == "manifest.json")
    assert message is None or "can't be read" in message or "is damaged: checkpoint.json" in message


class Touch:
    """Unpickled, it leaves a mark."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_checkpoints_are_not_unpickled(given: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Each file replaced by a pickle, beside checkpoints of kinds that are unpickled elsewhere; with checksums."""
    folder = given / "checkpoints" / "12"
    state = folder / "state"
    evil = pickle.dumps(Touch(given.parent / "was run"))
    names = [str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()]
    whole = {name: (state / name).read_bytes() for name in names}
    record = json.loads((folder / "checkpoint.json").read_text())
    refusals = 0
    for name in names:
        (state / name).write_bytes(evil)
        for other in ("checkpoint", "data.pkl", "checkpoint.msgpack"):
            (state / other).write_bytes(evil)
        files = {str(path.relative_to(state)): digest(path) for path in state.rglob("*") if path.is_file()}
        (folder / "checkpoint.json").write_text(json.dumps(believable({**record, "files": files})))
        message = run(given, capsys, "sample", "--checkpoint=12")
        refusals += message is not None
        assert message is None or "can't be read" in message
        (state / name).write_bytes(whole[name])
    # Those that carry the numbers can't be done without.
    assert refusals >= 3


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def signed(folder: pathlib.Path) -> None:
    """Checksums as somebody writes them who wants to be believed."""
    names = [line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_text("".join(f"{digest(folder / name)}  {name}\n" for name in names))


HEADERS = {
    "length beyond the file": (2**40, b"{}"),
    "offsets beyond the file": (None, b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1000000000000]}}'),
    "huge shape": (None, b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 16], "data_offsets": [0, 0]}}'),
    "type of objects": (None, b'{"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}'),
    "deep": (None, b'{"a":' * 50_000),
}


@pytest.mark.parametrize(("length", "header"), HEADERS.values(), ids=HEADERS)
def test_safetensors_with_wild_headers(
    used: pathlib.Path, tmp_path: pathlib.Path, length: int | None, header: bytes
) -> None:
    folder = pathlib.Path(shutil.copytree(used / "exported", tmp_path / "exported"))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header)
    signed(folder)
    with pytest.raises(UserError, match=r"model\.safetensors"), _watch.over(folder):
        vae_jax.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.jaxexport", "decoder.jaxexport", "config.json"])
def test_exports_are_not_unpickled(used: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    """The programs aren't opened at all: the model is made anew."""
    folder = pathlib.Path(shutil.copytree(used / "exported", tmp_path / "exported"))
    (folder / name).write_bytes(pickle.dumps(Touch(tmp_path / "was run")))
    signed(folder)
    with _watch.over(folder), contextlib.suppress(UserError):
        vae_jax.load(folder)
    assert not (tmp_path / "was run").exists()


def test_names_in_a_table_are_no_formulas(given: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    pictures = given / "pictures"
    pictures.mkdir()
    names = ["=HYPERLINK(1).png", "+1.png", "-1.png", "@SUM(1).png", "a=1.png", "\x1b[2J.png", "\udcff.png"]
    for name in names:
        Image.new("L", (8, 8)).save(pictures / name, "PNG")
    (pictures / "\x1b]0;t\x07.png").write_text("no picture")
    assert run(given, capsys, "score", f"--input={pictures}") is None
    with (given / "scores_input.csv").open(encoding="utf-8") as file:
        found = [row["name"] for row in csv.DictReader(file)]
    shown = [*(f"./{name}" for name in names[:4]), names[4], r"\x1b[2J.png", r"\xff.png"]
    assert sorted(found) == sorted(shown)
