"""What a measurement was made on, and the memory that it takes there."""

import os
import pathlib
import resource
import sys
from typing import Any

import jax

from vae_jax.provenance import surroundings


def machine() -> dict[str, Any]:
    """Hardware and versions, for a report."""
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        **surroundings(),
    }


def memory_taken(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """Bytes that steps take.

    Args:
        compiled: The steps; they have run, and nothing else has since.

    Returns:
        What the compiler plans for a device (arguments with the data set where that lives there, results that need
        room of their own, intermediate values, and all together), the highest use of a device so far where it counts
        that, and the memory of this process, now and at its highest. None for what isn't known.
    """
    names = ("compiled_total", "compiled_arguments", "compiled_results", "compiled_intermediates")
    planned: dict[str, int | None] = dict.fromkeys(names)
    analysis = compiled.memory_analysis()
    if analysis is not None:
        results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        parts = analysis.argument_size_in_bytes, results, analysis.temp_size_in_bytes
        planned = dict(zip(names, (sum(parts), *parts), strict=True))
    stats = jax.local_devices()[0].memory_stats() or {}
    # Linux counts in KB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    resident, peak = _resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        **planned,
        "device_peak": stats.get("peak_bytes_in_use"),
        "process_resident": resident,
        # Linux brings its peak up to date only now and then.
        "process_peak": max(peak, resident or 0),
    }


def _memory() -> int | None:
    names = os.sysconf_names
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _resident() -> int | None:
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
