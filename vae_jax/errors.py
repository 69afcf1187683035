"""The exceptions that end a command with a line for a person."""

import numbers
from typing import Any

from vae_jax.escaping import one_line, printable

# JAX counts with 32 bits.
COUNTS = 2**31


class UserError(Exception):
    """What a user can cause and mend: one line that names the cause and the mend.

    The command line prints it on stderr and exits with status 2; a caller from Python sees an
    ordinary exception. Names in it may be anybody's, so it is made `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DataError(UserError):
    """Data that isn't where a config says, or isn't what is needed.

    Who trains mends that with a flag, who opens a run can't: its data is named in the run's folder. So the two halves
    of the line are told apart.

    Attributes:
        cause: What is wrong.
        mend: What to do about it where the config is given on the command line.
    """

    def __init__(self, cause: str, mend: str) -> None:
        super().__init__(f"{cause}; {mend}")
        self.cause, self.mend = cause, mend

    def __reduce__(self):
        # Processes that decode hand it over, and an exception's own way would forget the second half.
        return type(self), (self.cause, self.mend)


class Stopped(Exception):
    """A run was asked to stop, and has saved what it did; its text says how to go on."""


def check_count(name: str, value: Any) -> None:
    """Refuses what is no number of things to make.

    Args:
        name: What the caller calls it.
        value: What was given.

    Raises:
        UserError: If it is no whole number, below 1, or more than JAX can count.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 1 <= int(value) < COUNTS:
        raise UserError(f"{name} is {one_line(repr(value), 60)} but must be a whole number, at least 1, below 2^31")
