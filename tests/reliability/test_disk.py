"""Full or read-only disks and folders that disappear: one line, status 2, and the same command goes on later."""

import dataclasses
import pathlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest
from harms import SmallDisk, some_manual
from PIL import Image
from runs_that_die import SECONDS_TO_LIVE, Command, differences, finish

from vae_jax.cli import main
from vae_jax.runs import checkpoints

pytestmark = pytest.mark.usefixtures("remembered")
TINY = ["--config.model.network.hidden=(4,)", "--config.model.latents=2", "--config.train.report=False"]
STEPS = [*TINY, "--config.train.num_steps=6", "--config.train.checkpoint_every=2", "--config.train.log_every=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    main([f"--workdir={workdir}", *STEPS])
    return workdir


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Makes a small file system of its own."""
    made = []

    def make(kilobytes: int) -> SmallDisk:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        try:
            made.append(SmallDisk(place, kilobytes))
        except PermissionError as error:
            pytest.skip(f"a file system can't be mounted here: {error}")
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stopped(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that has to end with status 2, and gives its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        errors = capsys.readouterr().err
        assert caught.value.code == 2
        assert errors.startswith("vae-jax: error: ") and errors.count("\n") == 1
        return errors

    return run


@pytest.fixture
def before_checkpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Lets something happen while a run trains: right before it writes the checkpoint of a step."""
    save = checkpoints.save

    def arrange(step: int, happen: Callable[[], object]) -> None:
        def save_later(directory: pathlib.Path, at: int, *arguments) -> None:
            if at == step:
                monkeypatch.setattr(checkpoints, "save", save)
                happen()
            save(directory, at, *arguments)

        monkeypatch.setattr(checkpoints, "save", save_later)

    return arrange


def assert_sound(workdir: pathlib.Path) -> None:
    assert checkpoints.newest_sound(workdir / "checkpoints")[1] == {}


# Kilobytes, and what doesn't fit any more.
SIZES = {
    4: "images.json",
    8: "manifest.json",
    12: "run",
    20: "samples_mean_0000002.png",
    100: "checkpoints/2",
    1200: "checkpoints/",
}


@pytest.mark.long
@pytest.mark.parametrize("kilobytes", some_manual(SIZES, quick=[100]))
def test_disk_that_fills_up(kilobytes: int, disk, stopped, whole: pathlib.Path) -> None:
    small, named = disk(kilobytes), SIZES[kilobytes]
    workdir = small.place / "run"
    message = stopped(f"--workdir={workdir}", *STEPS)
    assert named in message and "make room" in message
    assert_sound(workdir)
    small.remount("size=64m")
    main([f"--workdir={workdir}", *STEPS])
    assert differences(workdir, whole) == []


@pytest.mark.manual
# A thread of Orbax goes on with what it can't finish, when nobody waits for it any more.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_disk_that_somebody_else_fills_while_a_checkpoint_is_written(
    disk, before_checkpoint, monkeypatch: pytest.MonkeyPatch, whole: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """Room that was there when it was looked for: Orbax talks then, but the last line says what to do."""
    small = disk(64 * 1024)
    workdir = small.place / "run"
    monkeypatch.setattr(checkpoints, "_check_room", lambda directory, state: None)
    before_checkpoint(4, lambda: (small.place / "others").write_bytes(bytes(filling(small.place))))
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={workdir}", *STEPS])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert caught.value.code == 2
    assert last.startswith(f"vae-jax: error: checkpoint {workdir / 'checkpoints' / '4'}") and "make room" in last
    assert_sound(workdir)
    (small.place / "others").unlink()
    main([f"--workdir={workdir}", *STEPS])
    assert differences(workdir, whole) == []


def filling(place: pathlib.Path) -> int:
    """All but 20 KB."""
    return shutil.disk_usage(place).free - 20 * 1024


@pytest.mark.manual
def test_disk_that_becomes_read_only(disk, before_checkpoint, stopped, whole: pathlib.Path) -> None:
    small = disk(64 * 1024)
    workdir = small.place / "run"
    # Files that are open for writing keep a disk from becoming read-only: of a run a bind mount is made so.
    before_checkpoint(4, lambda: small.shield(workdir))
    assert "Read-only file system" in stopped(f"--workdir={workdir}", *STEPS)
    assert_sound(workdir)
    assert "Read-only file system" in stopped(f"--workdir={workdir}", *STEPS)
    assert "Read-only file system" in stopped("evaluate", f"--workdir={workdir}")
    small.unshield(workdir)
    main([f"--workdir={workdir}", *STEPS])
    assert differences(workdir, whole) == []


@pytest.mark.manual
def test_folder_that_is_deleted(before_checkpoint, stopped, tmp_path: pathlib.Path, whole: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    before_checkpoint(4, lambda: shutil.rmtree(workdir))
    assert "make room" in stopped(f"--workdir={workdir}", *STEPS)
    assert not workdir.exists()
    main([f"--workdir={workdir}", *STEPS])
    assert differences(workdir, whole) == []


@pytest.mark.manual
@pytest.mark.parametrize("again", [False, True], ids=["moved", "and another folder put in its place"])
def test_folder_that_is_moved(
    again: bool, before_checkpoint, stopped, tmp_path: pathlib.Path, whole: pathlib.Path
) -> None:
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def move() -> None:
        workdir.rename(elsewhere)
        (workdir / "checkpoints").mkdir(parents=True)
        if not again:
            shutil.rmtree(workdir)

    # After the checkpoint of step 2, which still is where it belongs.
    before_checkpoint(2, lambda: None)
    main([f"--workdir={workdir}", *STEPS, "--config.train.num_steps=2"])
    before_checkpoint(4, move)
    message = stopped(f"--workdir={workdir}", *STEPS, "--config.train.num_steps=8")
    assert "moved or deleted" in message or "could not be written" in message
    shutil.rmtree(workdir, ignore_errors=True)
    elsewhere.rename(workdir)
    main([f"--workdir={workdir}", *STEPS])
    assert differences(workdir, whole) == []


@pytest.mark.manual
def test_checkpoints_that_are_deleted_meanwhile(before_checkpoint, tmp_path: pathlib.Path, whole: pathlib.Path) -> None:
    """The run goes on: its next checkpoint is worth as much as those that are gone."""
    before_checkpoint(4, lambda: shutil.rmtree(tmp_path / "run" / "checkpoints"))
    main([f"--workdir={tmp_path / 'run'}", *STEPS])
    assert [checkpoint.step for checkpoint in checkpoints.listing(tmp_path / "run" / "checkpoints")] == [4, 6]
    one, other = (checkpoints.load(checkpoints.choose(run / "checkpoints", "6")) for run in (tmp_path / "run", whole))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other))


@pytest.mark.manual
def test_report_that_does_not_fit(disk, stopped, whole: pathlib.Path) -> None:
    small = disk(1024)
    output = small.place / "report.html"
    message = stopped("report", f"--workdir={whole}", f"--output={output}")
    assert "report.html can't be written (No space left on device)" in message
    assert list(small.place.iterdir()) == []


@pytest.mark.manual
def test_run_is_finished_where_its_report_does_not_fit(
    disk, whole: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    small = disk(2048)
    workdir = small.place / "run"
    main([f"--workdir={workdir}", *STEPS, "--config.train.report=True"])
    captured = capsys.readouterr()
    assert captured.err.startswith("report.html isn't written") and captured.err.count("\n") == 1
    assert "No space left on device" in captured.err and "6 steps in" in captured.out
    assert checkpoints.choose(workdir / "checkpoints", "latest").step == 6


@pytest.mark.manual
def test_decoded_images_that_do_not_fit(
    disk, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are decoded at each start then, with a word about it."""
    small = disk(128)
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.place / "user"))
    pictures = small.place / "pictures"
    pictures.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number:02}.png")
    (small.place / "others").write_bytes(bytes(shutil.disk_usage(small.place).free - 4096))
    data = ["--config.data.source=folder", f"--config.data.dir={pictures}", "--config.data.image_size=8"]
    main([f"--workdir={tmp_path / 'full'}", *STEPS, *data, "--config.train.batch_size=4"])
    assert "can't be written" in caplog.text and "No space left on device" in caplog.text
    (small.place / "others").unlink()
    main([f"--workdir={tmp_path / 'room'}", *STEPS, *data, "--config.train.batch_size=4"])
    main([f"--workdir={tmp_path / 'cached'}", *STEPS, *data, "--config.train.batch_size=4"])
    assert differences(tmp_path / "full", tmp_path / "room") == []
    assert differences(tmp_path / "cached", tmp_path / "room") == []


@pytest.mark.long
def test_second_process_is_refused_until_the_first_is_killed(tmp_path: pathlib.Path) -> None:
    first = Command(tmp_path / "run", num_steps=10**7, every=50)
    (process,) = first.start()
    try:
        while not checkpoints.listing(first.workdir / "checkpoints"):
            assert process.poll() is None, first.log.read_text()
            time.sleep(0.02)
        # It lives, but leaves the machine to the second one.
        process.send_signal(signal.SIGSTOP)
        before = (first.workdir / "config.json").read_bytes()
        # Another number of steps may be asked of a run, but not while somebody works at it.
        (other,) = dataclasses.replace(first, num_steps=10**6).start()
        assert other.wait(timeout=SECONDS_TO_LIVE) == 2
        refusal = f"vae-jax: error: another process is training in '{first.workdir}'"
        assert [line for line in first.log.read_text().splitlines() if line.startswith(refusal)]
        assert process.poll() is None and (first.workdir / "config.json").read_bytes() == before
    finally:
        process.kill()
        process.wait()
    more = checkpoints.listing(first.workdir / "checkpoints")[-1].step + 10
    third = dataclasses.replace(first, num_steps=more)
    finish(third.start(), third.log)
    assert checkpoints.choose(first.workdir / "checkpoints", "latest").step == more
