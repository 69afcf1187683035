"""The one exception that stands for a mistake a person can mend."""


class UserError(Exception):
    """What a user can cause and mend: one line that names the cause and the mend.

    The command line prints it on stderr and exits with status 2; a caller from Python sees an
    ordinary exception.
    """
