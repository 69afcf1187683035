"""What a result came from: versions, hardware, commit and command."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "vae-jax")


def surroundings() -> dict[str, Any]:
    """Versions and devices, for people who want the same result, or wonder at another one."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def program() -> str:
    """How this program is called, as a user would type it again."""
    path = sys.argv[0]
    return f"python {path}" if path.endswith(".py") else pathlib.Path(path).name


def command_line() -> list[str]:
    """The command as it was typed."""
    return [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this file is in, if it is in one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
