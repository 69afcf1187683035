"""Compiled programs are kept in the user's cache folder, unless `JAX_COMPILATION_CACHE_DIR` is set."""

import pathlib

import jax
import pytest

from vae_jax.cli.compilation import cache_compiled_programs


@pytest.fixture(autouse=True)
def restored_options(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    before = {f"jax_{name}": jax.config.values[f"jax_{name}"] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    cache_compiled_programs()
    folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "vae_jax" and folder.is_dir()
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.0


def test_an_environment_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    cache_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None and not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "vae_jax").write_text("a file where the folder should be")
    cache_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert capsys.readouterr().err.startswith("compiled programs aren't kept")
