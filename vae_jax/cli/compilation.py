"""Keeps compiled programs in the user's cache folder, so that a second start needn't compile."""

import hashlib
import os
import pathlib
import platform
import sys

import jax
import platformdirs


def remember_compiled() -> None:
    """Lets JAX keep what it compiles in the user's cache folder.

    A folder that JAX was already told to use (`JAX_COMPILATION_CACHE_DIR`) stays; an empty value there turns it off.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or chosen is not None:
        return
    folder = platformdirs.user_cache_path("vae_jax", appauthor=False) / f"compiled-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        print(f"compiled programs aren't kept: {folder} can't be made ({reason})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default only what took more than a second is kept, but a start compiles dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _machine() -> str:
    """Tells kinds of processors apart: home folders are shared, compiled programs of CPUs can't be."""
    try:
        facts = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        lines = [line for line in facts.splitlines() if line.startswith(("flags", "Features", "model name"))]
    except OSError:
        lines = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:12]
