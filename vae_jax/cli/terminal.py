"""What is printed as a result: with colours in a terminal, plain in a log file or a pipe."""

import sys

import rich.console
import rich.highlighter
import rich.theme

from vae_jax.printable import printable

_COLOURS = rich.theme.Theme({"repr.number": "bold cyan", "repr.path": "magenta", "repr.filename": "magenta"})


def say(text: str) -> None:
    """Prints lines of a result, `printable`; where standard output is no terminal, without colours."""
    text = "\n".join(map(printable, text.split("\n")))
    if not sys.stdout.isatty():
        print(text, flush=True)
        return
    console = rich.console.Console(theme=_COLOURS, highlighter=rich.highlighter.ReprHighlighter())
    console.print(text, markup=False, emoji=False, soft_wrap=True)
