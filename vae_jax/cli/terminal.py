"""Prints results: in colour in a terminal, plain in a log file or a pipe."""

import os
import sys

from vae_jax.escaping import printable


def say(text: str) -> None:
    """Prints lines of a result with control characters escaped; in colour if standard output is a terminal."""
    text = "\n".join(map(printable, text.split("\n")))
    if not sys.stdout.isatty():
        print_lines(text)
        return
    import rich.console
    import rich.highlighter
    import rich.theme

    colours = {"repr.number": "bold cyan", "repr.path": "magenta", "repr.filename": "magenta"}
    console = rich.console.Console(theme=rich.theme.Theme(colours), highlighter=rich.highlighter.ReprHighlighter())
    console.print(text, markup=False, emoji=False, soft_wrap=True)


def print_lines(text: str) -> None:
    """Prints lines as they are; they are lost if standard output is a closed pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has ended, as `head` does; the work goes on.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
