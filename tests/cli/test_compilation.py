"""What was compiled is kept in the user's cache folder, unless one is told otherwise."""

import pathlib

import jax
import pytest

from vae_jax.cli.compilation import remember_compiled

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def options_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    before = {name: jax.config.values[name] for name in OPTIONS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_everything_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    remember_compiled()
    folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "vae_jax" and folder.is_dir()
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.0


def test_a_place_that_was_named_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    remember_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] is None and not list(tmp_path.iterdir())


def test_cache_that_cannot_be_written_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "vae_jax").write_text("a file where the folder should be")
    remember_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    told = capsys.readouterr().err
    assert told.startswith("compiled programs aren't kept") and told.count("\n") == 1
