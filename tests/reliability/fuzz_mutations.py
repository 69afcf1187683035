"""Changes to bytes and JSON that make a sound file a damaged or hostile one."""

import copy
import json
import string
from collections.abc import Iterator
from typing import Any

import numpy as np

Rng = np.random.Generator
# What size fields are wrong with.
EDGES = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_TEXTS = (
    *("", "../../x", "/dev/zero", "\x1b[2J\x1b]0;title\x07", "<script>alert(1)</script>", "\ud800", "\0", "a" * 5000),
    *("=1+1", "os:system", "nan", "\u202egnp.exe"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**9, 2**31, 2**63, 10**400, 0.0, -0.5, 1e308, float("nan"), float("inf")),
    *([], {}, [1], [10**9], [0, -1], [None], [[1]], {"a": 1}),
)


def any_text(rng: Rng) -> str:
    """A text that somebody might regret to print, open or parse; or a plain one."""
    if rng.random() < 0.5:
        return _TEXTS[rng.integers(len(_TEXTS))]
    letters = string.printable + "äß漢\x1b\x00\u202e"
    return "".join(letters[number] for number in rng.integers(0, len(letters), rng.integers(0, 12)))


def any_value(rng: Rng) -> Any:
    """Any JSON value."""
    return any_text(rng) if rng.random() < 0.3 else copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])


def damaged(rng: Rng, content: bytes) -> bytes:
    """Bytes with one to four changes: flipped, overwritten, cut off, left out, doubled, a number replaced."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not changed:
            break
        # Half of them near the ends, where most formats say what follows.
        last = len(changed) - 1
        near_an_end = min(63, last), max(0, last - 200)
        start = int(
            rng.choice(
                [rng.integers(last + 1), rng.integers(near_an_end[0] + 1), rng.integers(near_an_end[1], last + 1)]
            )
        )
        length, size = int(rng.integers(1, 9)), int(rng.choice([1, 2, 4, 8]))
        part = changed[start : start + length]
        number = EDGES[rng.integers(len(EDGES))] % 256**size
        replacement = (
            bytes([changed[start] ^ 1 << int(rng.integers(8))]) + part[1:],
            rng.bytes(length),
            b"",
            part * 4,
            number.to_bytes(size, rng.choice(["little", "big"])) + part[size:],
        )[rng.integers(5)]
        changed[start : start + length] = replacement
        if rng.random() < 0.2:
            del changed[start:]
    return bytes(changed)


def damaged_json(rng: Rng, content: Any) -> Any:
    """JSON with one to three values replaced, left out, doubled or added."""
    changed = json.loads(json.dumps(content))
    for _ in range(rng.integers(1, 4)):
        places = list(_places(changed))
        if not places:
            return any_value(rng)
        parent, key = places[rng.integers(len(places))]
        match rng.integers(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[any_text(rng)] = any_value(rng)
            case 2 if isinstance(parent[key], list):
                parent[key] = parent[key] * int(rng.integers(0, 200))
            case 3 if type(parent[key]) in (int, float):
                parent[key] = -parent[key] if rng.random() < 0.5 else parent[key] * 10 ** int(rng.integers(1, 30))
            case _:
                parent[key] = any_value(rng)
    return changed


def as_text(rng: Rng, content: Any) -> bytes:
    """JSON as bytes; now and then no JSON at all."""
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    return damaged(rng, text) if rng.random() < 0.1 else b"[" * 100_000 if rng.random() < 0.02 else text


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield content, key
        yield from _places(value)
