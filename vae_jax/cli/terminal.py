"""What is printed as a result: with colours in a terminal, plain in a log file or a pipe."""

import contextlib
import io
import os
import sys

from vae_jax.errors import UserError
from vae_jax.printable import printable


def print_any_letter() -> None:
    """Lets standard output and error take every letter: where a locale has no ±, a question mark says as much."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_error(line: str) -> None:
    """Prints a line on standard error, if that takes it: there is no other place to tell of trouble."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Prints lines of a result, `printable`; where standard output is no terminal, without colours.

    Raises:
        UserError: As `put_out`.
    """
    text = "\n".join(map(printable, text.split("\n")))
    if not sys.stdout.isatty():
        put_out(text)
        return
    import rich.console
    import rich.highlighter
    import rich.theme

    colours = {"repr.number": "bold cyan", "repr.path": "magenta", "repr.filename": "magenta"}
    console = rich.console.Console(theme=rich.theme.Theme(colours), highlighter=rich.highlighter.ReprHighlighter())
    console.print(text, markup=False, emoji=False, soft_wrap=True)


def put_out(text: str) -> None:
    """Prints lines as they are; where nobody reads them any more they are lost.

    Raises:
        UserError: If standard output doesn't take them, a full disk for example.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever read it has closed it, as `head` does: there is nobody to tell, but work to finish.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except OSError as error:
        # Python would try once more at its end, and complain in many lines.
        sys.stdout = None
        raise UserError(
            f"standard output can't be written ({error.strerror or error}); send it to another place"
        ) from error
