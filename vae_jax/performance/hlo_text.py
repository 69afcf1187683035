"""The lines of HLO text: instructions, and the types that they write their shapes as."""

import dataclasses
import math
import re

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_SEVERAL_CALLED = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: its result's type, operation, operands' names and whatever follows them."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    argument: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs; each of several branches counts."""
        if self.opcode in ("async-update", "async-done"):
            return []  # its start has run them
        several = _SEVERAL_CALLED.search(self.attributes)
        others = [name.strip().lstrip("%") for name in several[1].split(",")] if several else []
        return [*_CALLED.findall(self.attributes), *others]


def computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Reads a module.

    Args:
        text: HLO of a whole module.

    Returns:
        The instructions of each computation, both by name, and the name of the computation that is the program.

    Raises:
        ValueError: If the text is no HLO module.
    """
    found: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if opening := _COMPUTATION.match(line):
            current = found.setdefault(opening[2], {})
            entry = opening[2] if opening[1] else entry
        elif instruction := _instruction(line):
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("this is no HLO module: no computation is marked ENTRY")
    return found, entry


def _instruction(line: str) -> Instruction | None:
    """A line of a computation; None for any other."""
    start = _INSTRUCTION.match(line)
    if not start:
        return None
    rest = line[start.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.find(" ")
    opcode = _OPCODE.match(rest, end)
    if not opcode:
        return None
    last = _closing(rest, opcode.end() - 1)
    argument = rest[opcode.end() : last - 1]
    operands = tuple(name for name in re.findall(r"%([\w.\-]+)", argument))
    return Instruction(start[2], rest[:end], opcode[1], operands, rest[last:], argument)


def _closing(text: str, start: int = 0) -> int:
    """Where the parenthesis that opens at a place has closed."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return len(text)


def elements(tuple_type: str) -> list[str]:
    """The types that a tuple's type is made of."""
    found, depth, start = [], 0, 1
    for index, character in enumerate(tuple_type):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if (character == "," and depth == 1) or depth == 0:
            found.append(tuple_type[start:index])
            start = index + 1
    return found


def shape_of(type_text: str) -> Shape:
    """The shape of an array's type."""
    found = _ARRAY.search(type_text)
    return tuple(int(size) for size in found[2].split(",") if size) if found else ()


def num_bytes(type_text: str) -> int:
    """Bytes of all arrays of a type, without the padding of layouts."""
    total = 0
    for name, sizes in _ARRAY.findall(type_text):
        digits = re.search(r"\d+", name)
        bits = _BITS.get(name, int(digits[0]) if digits else 8)
        total += math.ceil(bits * math.prod(int(size) for size in sizes.split(",") if size) / 8)
    return total


def numbers(attributes: str, name: str) -> list[int]:
    """An attribute that is a list of numbers; empty where it isn't there."""
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", attributes)
    return [int(number) for number in found[1].split(",") if number] if found else []
