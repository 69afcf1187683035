"""Standard output that nobody reads any more."""

import os
import sys

import pytest

from vae_jax.cli.terminal import print_lines, say


def test_closed_pipe_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        print_lines("read")
        assert os.read(reading, 100) == b"read\n"
        os.close(reading)
        print_lines("not read")
        say("not read either")
