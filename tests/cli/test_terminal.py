"""Standard output that nobody reads, or that can't be written."""

import os
import sys

import pytest

from vae_jax.cli.terminal import put_out, say


def test_who_stops_reading_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        put_out("a line that is read")
        assert os.read(reading, 100) == b"a line that is read\n"
        os.close(reading)
        put_out("a line that nobody reads")
        say("nor this one")
