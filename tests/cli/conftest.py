"""What tests of the command line share."""

import pathlib

import pytest
from on_disk import contents
from tiny_runs import finished, run  # noqa: F401

from vae_jax.cli import main


@pytest.fixture(autouse=True)
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout, because the default of --workdir is relative."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture):
    """Runs a command that has to be refused, and gives its one line."""

    def refuse(*arguments: str) -> str:
        before = contents(pathlib.Path.cwd())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert caught.value.code == 2
        errors = capsys.readouterr().err
        assert errors.startswith("vae-jax: error: ") and errors.endswith("\n") and errors.count("\n") == 1
        assert contents(pathlib.Path.cwd()) == before
        return errors

    return refuse
