"""The type checker that jaxtyping's import hook applies while the tests run."""

from beartype import BeartypeConf, beartype

# As everywhere in Python, a whole number may stand where a float is expected.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
