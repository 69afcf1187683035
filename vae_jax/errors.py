"""The exceptions that end a command with a line for a person."""

from vae_jax.printable import printable


class UserError(Exception):
    """What a user can cause and mend: one line that names the cause and the mend.

    The command line prints it on stderr and exits with status 2; a caller from Python sees an
    ordinary exception. Names in it may be anybody's, so it is made `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Stopped(Exception):
    """A run was asked to stop, and has saved what it did; its text says how to go on."""
