"""Pictures and checkpoints are written beside the training loop."""

import threading

import pytest

from vae_jax.training import Background


def broken() -> None:
    raise OSError("no space left")


def test_job_runs_beside_the_caller() -> None:
    go_on, done = threading.Event(), []
    with Background() as background:
        background.start(lambda: (go_on.wait(10), done.append(1)))
        background.check()
        assert not done
        go_on.set()
        background.wait()
        assert done == [1]


def test_next_job_waits_for_the_one_before() -> None:
    order = []
    with Background() as background:
        for number in range(5):
            background.start(lambda number=number: order.append(number))
    assert order == list(range(5))


@pytest.mark.parametrize("then", ["start", "wait", "check"])
def test_error_of_a_job_reaches_the_caller_once(then: str) -> None:
    with Background() as background:
        background.start(broken)
        while then == "check" and background._job is not None and not background._job.done():
            pass
        with pytest.raises(OSError, match="no space left"):
            getattr(background, then)(*([broken] if then == "start" else []))
        background.wait()


def test_several_processes_work_one_after_the_other() -> None:
    here = []
    with Background(beside=False) as background:
        background.start(lambda: here.append(threading.current_thread()))
        assert here == [threading.current_thread()]
        with pytest.raises(OSError):
            background.start(broken)
