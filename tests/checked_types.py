"""The type checker that jaxtyping's import hook applies while the tests run."""

import contextlib
from collections.abc import Iterator

import jaxtyping
from beartype import BeartypeConf, beartype

# As everywhere in Python, a whole number may stand where a float is expected.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks: jaxtyping can't tell whether symbolic sizes, which jax.export takes, can be broadcast."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
