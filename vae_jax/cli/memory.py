"""Whether a run fits the memory, said before it starts."""

import os

import jax
from jax.sharding import Mesh

from vae_jax.config import Config
from vae_jax.errors import UserError


def check_memory(compiled: jax.stages.Compiled, mesh: Mesh, config: Config) -> None:
    """Compares what the compiler needs with what there is.

    Args:
        compiled: The steps.
        mesh: Where they run.
        config: The run, for what the user can change.

    Raises:
        UserError: If it can't fit, with how much is needed and what would help.
    """
    stats = compiled.memory_analysis()
    free = free_bytes(mesh)
    if stats is None or free is None:
        return
    each = (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    )
    # Simulated devices, and those of a CPU, share one memory.
    sharing = mesh.local_mesh.size if mesh.devices.flat[0].platform == "cpu" else 1
    needed = each * sharing
    if needed > free:
        replicas = f" or --config.num_seeds (now {config.num_seeds})" if config.num_seeds > 1 else ""
        raise UserError(
            f"a step needs {_text(needed)} of memory, but {_text(free)} are free; lower --config.train.batch_size (now "
            f"{config.train.batch_size}){replicas}, or raise --config.train.accumulation (now "
            f"{config.train.accumulation})"
        )


def free_bytes(mesh: Mesh) -> int | None:
    """Memory that can still be had: of one device, or of the machine where devices share that; None if unknown."""
    device = mesh.local_mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # Not Linux: what is installed is the best bound there is.
        names = os.sysconf_names
        if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return None


def _text(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
