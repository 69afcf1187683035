"""How much memory there is for what is about to be read."""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from vae_jax.errors import UserError

# Of an image that is made: itself, what it is made of, and what it is made into.
_BYTES_A_VALUE = 16
_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes of main memory that can still be had; None where the system doesn't say.

    On Linux what the kernel counts as available, or what a container has left of its own limit if that is less;
    elsewhere all that is installed, the best bound there is.
    """
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        of_machine = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        names = os.sysconf_names
        if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None
    of_container = _left_in_container()
    return of_machine if of_container is None else min(of_machine, of_container)


def check_images_fit(count: int, image_shape: Sequence[int]) -> None:
    """Refuses to make more images at once than the memory takes.

    Args:
        count: How many.
        image_shape: Height, width, channels.

    Raises:
        UserError: If they don't fit.
    """
    needed, free = count * math.prod(image_shape) * _BYTES_A_VALUE, available_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{count:,} images take {in_words(needed)} of memory, and {in_words(free)} are free; ask for fewer at once"
        )


def _left_in_container() -> int | None:
    """What the limit of a control group leaves; None where there is no limit."""
    try:
        # The file says `max` without a limit.
        left = int((_CGROUP / "memory.max").read_text()) - int((_CGROUP / "memory.current").read_text())
        lines = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Files that were read count as used, until somebody needs the memory.
        return max(0, left + int(lines["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return None


def in_words(count: int) -> str:
    """A number of bytes for people."""
    if count < 2**20:
        return f"{count:,} bytes"
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def planned_memory(compiled: Any) -> dict[str, int]:
    """Bytes that a compiled program takes of each device.

    Args:
        compiled: A `jax.stages.Compiled`; JAX itself isn't imported here, as processes that decode images need it not.

    Returns:
        `arguments` (of a training step: the state, and images that live on the device), `outputs`, what of these takes
        the place of arguments (`aliased`), `temporaries`, and all that is `needed` at once.
    """
    stats = compiled.memory_analysis()
    assert stats is not None
    fields = {"arguments": "argument", "outputs": "output", "aliased": "alias", "temporaries": "temp"}
    parts = {name: getattr(stats, f"{field}_size_in_bytes") for name, field in fields.items()}
    return {**parts, "needed": sum(parts.values()) - 2 * parts["aliased"]}
