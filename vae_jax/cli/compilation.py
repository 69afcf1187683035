"""Compiled programs are kept in the user's cache folder, so that a second start needn't compile."""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import sys
import warnings

import jax
import platformdirs

_TROUBLE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']+)': (.*)", re.DOTALL)


def remember_compiled() -> None:
    """Lets JAX keep what it compiles in the user's cache folder.

    A folder that JAX was already told to use (`JAX_COMPILATION_CACHE_DIR`) stays; an empty value there turns it off.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        _forget_damaged(pathlib.Path(chosen))
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
    _forget_damaged(folder)


def _forget_damaged(folder: pathlib.Path) -> None:
    """Removes what can't be read, so that it is made anew, and what couldn't be written to its end.

    JAX warns of both, two lines for each program, but leaves the file there and warns again at each start.
    """
    show_others = warnings.showwarning
    told = set()

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        trouble = _TROUBLE.match(str(message))
        if trouble is None:
            show_others(message, category, filename, lineno, file, line)
            return
        doing, program, reason = trouble.groups()
        for path in folder.glob(f"{program}*-cache"):
            # Nothing is lost but time, as where it can't be removed.
            with contextlib.suppress(OSError):
                path.unlink()
        if doing not in told:
            told.add(doing)
            if not folder.is_dir():
                told.update(("reading", "writing"))
                what = "aren't kept: that is no folder; name another one with JAX_COMPILATION_CACHE_DIR"
                print(f"compiled programs in {folder} {what}", file=sys.stderr)
                return
            what = "made anew" if doing == "reading" else "not kept"
            print(f"compiled programs in {folder} are {what} ({' '.join(reason.split())})", file=sys.stderr)

    warnings.showwarning = show


def _machine() -> str:
    """Tells kinds of processors apart: home folders are shared, compiled programs of CPUs can't be."""
    try:
        facts = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        lines = [line for line in facts.splitlines() if line.startswith(("flags", "Features", "model name"))]
    except OSError:
        lines = [platform.processor()]
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:12]
