"""What tests of the command line share."""

import pathlib

import pytest
from on_disk import contents

from vae_jax.cli import main


@pytest.fixture
def refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    """Runs a command that has to be refused, and gives its one line."""

    def run(*arguments: str) -> str:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert caught.value.code == 2
        errors = capsys.readouterr().err
        assert errors.startswith("vae-jax: error: ") and errors.endswith("\n")
        assert errors.count("\n") == 1
        assert "Traceback" not in errors
        assert contents(tmp_path) == before
        return errors

    return run
