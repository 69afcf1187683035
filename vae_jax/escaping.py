"""Escapes control characters in untrusted text, such as names of files."""

import re
import unicodedata

# Control characters and those that change the direction of what follows; halves of characters; line separators.
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Where an object lies in memory, which some libraries tell of it.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def printable(text: str) -> str:
    r"""The text with what a terminal would obey, or couldn't print, as escapes: `\x1b` for ESC.

    Bytes of a file name that are no UTF-8 (Python has them as lone surrogates) become `\xff` and the like.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(_escaped(letter) if unicodedata.category(letter) in _HARMFUL else letter for letter in text)


def one_line(error: object, most: int = 300) -> str:
    """What an exception, or any text, says: on one line, harmless to print, and not too much of it."""
    text = printable(" ".join(_ADDRESS.sub("", str(error)).split())).rstrip(".:") or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def counted(count: int, noun: str) -> str:
    """So many of something.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
