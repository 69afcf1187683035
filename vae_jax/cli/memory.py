"""Whether a run fits the memory, said before it starts."""

import jax
from jax.sharding import Mesh

from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.memory import available_memory, in_words


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
            f"a step needs {in_words(needed)} of memory, but {in_words(free)} are free; lower "
            f"--config.train.batch_size (now {config.train.batch_size}){replicas}, or raise "
            f"--config.train.accumulation (now {config.train.accumulation})"
        )


def free_bytes(mesh: Mesh) -> int | None:
    """Memory that can still be had: of one device, or of the machine where devices share that; None if unknown."""
    device = mesh.local_mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    return available_memory()
