"""Whether a run fits the memory, said before it starts."""

import jax
from jax.sharding import Mesh

from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.memory import available_memory, in_words, planned_memory


def check_memory(compiled: jax.stages.Compiled, mesh: Mesh, config: Config) -> None:
    """Compares what the compiler needs with what there is.

    Args:
        compiled: The steps.
        mesh: Where they run.
        config: The run, for what the user can change.

    Raises:
        UserError: If it can't fit, with how much is needed, for what, and what would help.
    """
    free = free_bytes(mesh)
    # Simulated devices, and those of a CPU, share one memory.
    sharing = mesh.local_mesh.size if mesh.devices.flat[0].platform == "cpu" else 1
    needed, arguments = (sharing * planned_memory(compiled)[name] for name in ("needed", "arguments"))
    if free is None or needed <= free:
        return
    train = config.train
    replicas = f", --config.num_seeds (now {config.num_seeds})" if config.num_seeds > 1 else ""
    raise UserError(
        f"a step needs {in_words(needed)} of memory, but {in_words(free)} are free; images, parameters and "
        f"the optimizer's state take {in_words(arguments)}; lower --config.train.batch_size (now {train.batch_size}), "
        f"a width of --config.model.network (now {config.model.network}), num_samples of --config.objective (now "
        f"{config.objective}){replicas}, raise --config.train.accumulation (now {train.accumulation}), or "
        f"stream images with --config.data.resident_mb (now {config.data.resident_mb})"
    )


def free_bytes(mesh: Mesh) -> int | None:
    """Memory that can still be had: of one device, or of the machine where devices share that; None if unknown."""
    device = mesh.local_mesh.devices.flat[0]
    if device.platform == "cpu":
        return available_memory()
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
