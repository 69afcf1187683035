"""Lists the parts of models and of training, or says what one of them is and what can be set."""

from absl import flags

from vae_jax.cli.flags import Flags
from vae_jax.cli.terminal import print_lines

NUM_NAMES = 1


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """There are no flags: the name of a part may follow."""
    del values, arguments


def run(values: Flags) -> None:
    """Prints the list, or the part.

    Raises:
        UserError: If there is no such part.
    """
    from vae_jax.build import describe_part, describe_parts

    print_lines(describe_part(values["names"][0]) if values["names"] else describe_parts())
