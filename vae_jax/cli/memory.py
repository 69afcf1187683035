"""Whether a run fits the memory, said before it starts."""

from typing import Any

import jax
from jax.sharding import Mesh

from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.memory import available_memory, in_words


def check_memory(compiled: jax.stages.Compiled, mesh: Mesh, config: Config, state: Any) -> None:
    """Compares what the compiler needs with what there is.

    Args:
        compiled: The steps.
        mesh: Where they run.
        config: The run, for what the user can change.
        state: What is trained, or its shapes.

    Raises:
        UserError: If it can't fit, with how much is needed, what takes most of it, and what would help.
    """
    stats = compiled.memory_analysis()
    free = free_bytes(mesh)
    if stats is None or free is None:
        return
    # Simulated devices, and those of a CPU, share one memory.
    sharing = mesh.local_mesh.size if mesh.devices.flat[0].platform == "cpu" else 1
    arguments = stats.argument_size_in_bytes * sharing
    work = (stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes) * sharing
    if arguments + work <= free:
        return
    trained = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) * sharing
    largest, mend = _largest(trained, max(0, arguments - trained), work, config)
    raise UserError(
        f"a step needs {in_words(arguments + work)} of memory, but {in_words(free)} are free; most of it, "
        f"{largest}: {mend}"
    )


def _largest(trained: int, data: int, work: int, config: Config) -> tuple[str, str]:
    """What takes most of the memory, and what would make it less."""
    model, train = config.model, config.train
    replicas = f" or --config.num_seeds (now {config.num_seeds})" if config.num_seeds > 1 else ""
    wide = model.latents > max(model.hidden, default=0)
    size = f"--config.model.latents (now {model.latents})" if wide else f"--config.model.hidden (now {model.hidden})"
    if trained >= max(data, work):
        return f"{in_words(trained)}, are parameters and the optimizer's state", f"lower {size}{replicas}"
    if data >= work:
        mend = "bring fewer or smaller images"
        if config.data.source in ("folder", "tfds"):
            mend = f"lower --config.data.resident_mb (now {config.data.resident_mb}), so that they stay in their files"
        return f"{in_words(data)}, are the images", mend
    samples = config.objective.num_samples
    fewer = f", --config.objective.num_samples (now {samples})" if samples > 1 else ""
    return (
        f"{in_words(work)}, is what is computed on the way",
        f"lower {size}, --config.train.batch_size (now {train.batch_size}){fewer}{replicas}, or raise "
        f"--config.train.accumulation (now {train.accumulation})",
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
