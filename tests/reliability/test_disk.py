"""Full or read-only disks and folders that disappear: one line, status 2, and the same command goes on later."""

import dataclasses
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest
from harms import SmallDisk
from runs_that_die import SECONDS_TO_LIVE, Command, differences
from tiny_runs import TINY, train

from vae_jax.cli import main
from vae_jax.runs import checkpoints


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Makes a small file system of its own."""
    made = []

    def make(kilobytes: int) -> SmallDisk:
        (tmp_path / "disk").mkdir()
        try:
            made.append(SmallDisk(tmp_path / "disk", kilobytes))
        except PermissionError as error:
            pytest.skip(f"a file system can't be mounted here: {error}")
        return made[-1]

    yield make
    for each in made:
        each.unmount(each.place)


@pytest.fixture
def stopped(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that has to end with status 2, and gives its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert caught.value.code == 2 and line.startswith("vae-jax: error: ")
        return line

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


def assert_sound(run: pathlib.Path) -> None:
    assert checkpoints.newest_sound(run / "checkpoints")[1] == {}


def assert_goes_on(run: pathlib.Path, finished: pathlib.Path) -> None:
    main([f"--workdir={run}", *TINY])
    assert differences(run, finished) == []


# Kilobytes, and what doesn't fit any more.
SIZES = {
    **{4: "images.json", 8: "manifest.json", 12: "run", 20: "samples_mean_0000006.png"},
    **{100: "checkpoints/6", 1200: "checkpoints/"},
}


@pytest.mark.long
@pytest.mark.parametrize(
    "kilobytes", [pytest.param(size, marks=[pytest.mark.manual] * (size != 100)) for size in SIZES]
)
def test_a_disk_that_fills_up_is_told(kilobytes: int, disk, stopped, finished: pathlib.Path) -> None:
    small = disk(kilobytes)
    run = small.place / "run"
    message = stopped(f"--workdir={run}", *TINY)
    assert SIZES[kilobytes] in message and "make room" in message
    assert_sound(run)
    small.enlarge()
    assert_goes_on(run, finished)


@pytest.mark.manual
def test_a_disk_that_becomes_read_only_is_told(disk, before_checkpoint, stopped, finished: pathlib.Path) -> None:
    small = disk(64 * 1024)
    run = small.place / "run"
    # Files that are open for writing keep a disk from becoming read-only: of a run a bind mount is made so.
    before_checkpoint(12, lambda: small.shield(run))
    for command in (["train", *TINY], ["train", *TINY], ["evaluate"]):
        assert "Read-only file system" in stopped(command[0], f"--workdir={run}", *command[1:])
        assert_sound(run)
    small.unmount(run)
    assert_goes_on(run, finished)


@pytest.mark.long
@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
def test_a_folder_that_goes_away_is_told(
    fate: str, before_checkpoint, stopped, tmp_path: pathlib.Path, finished: pathlib.Path
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def go() -> None:
        run.rename(elsewhere)
        if fate == "replaced":
            (run / "checkpoints").mkdir(parents=True)

    before_checkpoint(12, go)
    message = stopped(f"--workdir={run}", *TINY, "--config.train.num_steps=24")
    assert any(words in message for words in ("moved or deleted", "could not be written", "make room"))
    if fate != "deleted":
        shutil.rmtree(run, ignore_errors=True)
        elsewhere.rename(run)
    assert_goes_on(run, finished)


@pytest.mark.manual
def test_a_run_is_finished_where_its_report_does_not_fit(disk, stopped, capsys: pytest.CaptureFixture) -> None:
    small = disk(2048)
    train(small.place / "run", "--config.train.report=True")
    captured = capsys.readouterr()
    assert captured.err.startswith("report.html isn't written") and captured.err.count("\n") == 1
    assert "No space left on device" in captured.err and "12 steps in" in captured.out
    message = stopped("report", f"--workdir={small.place / 'run'}")
    assert "report.html can't be written (No space left on device)" in message
    assert not list((small.place / "run").glob("*report*"))


@pytest.mark.long
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: pathlib.Path) -> None:
    first = Command(tmp_path / "run", num_steps=10**7, every=50)
    (process,) = first.start()
    try:
        first.wait_for([process], first.newest)
        # It lives, but leaves the machine to the second one.
        process.send_signal(signal.SIGSTOP)
        before = (first.workdir / "config.json").read_bytes()
        # Another number of steps may be asked of a run, but not while somebody works at it.
        (other,) = dataclasses.replace(first, num_steps=10**6).start()
        assert other.wait(timeout=SECONDS_TO_LIVE) == 2
        assert f"vae-jax: error: another process is training in '{first.workdir}'" in first.said()
        assert process.poll() is None and (first.workdir / "config.json").read_bytes() == before
    finally:
        process.kill()
        process.wait()
    more = dataclasses.replace(first, num_steps=first.newest() + 10)
    more.finish()
    assert first.newest() == more.num_steps
