"""The exceptions that end a command with a line for a person."""


class UserError(Exception):
    """What a user can cause and mend: one line that names the cause and the mend.

    The command line prints it on stderr and exits with status 2; a caller from Python sees an
    ordinary exception.
    """


class Stopped(Exception):
    """A run was asked to stop, and has saved what it did; its text says how to go on."""
