"""Keeps compiled programs in the user's cache folder, so that a second start need not compile."""

import hashlib
import os
import pathlib
import platform
import sys

import jax
import platformdirs


def cache_compiled_programs() -> None:
    """Makes JAX keep compiled programs in the user's cache folder.

    A folder chosen with `JAX_COMPILATION_CACHE_DIR` is left alone; an empty value there turns the cache off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = platformdirs.user_cache_path("vae_jax", appauthor=False) / f"compiled-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"compiled programs aren't kept: {folder} can't be made ({error.strerror or error})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX keeps only what took more than a second, but a start compiles dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _processor() -> str:
    """Identifies the kind of processor: machines may share a home folder, but not programs compiled for their CPUs."""
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        lines = [line for line in first.splitlines() if line.startswith(("flags", "Features", "model name"))]
    except OSError:
        lines = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:12]
