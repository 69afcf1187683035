"""Reads what a compiled program does on one device from its optimized HLO: matrix products and collectives.

The text says what each device really computes once XLA has divided, fused and doubled operations. `dot` and
`convolution` count, wherever they are: in fusions, branches, and bodies of loops. What a compiler hands over to a
library by a custom call can't be seen here.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable

from vae_jax.performance.hlo_text import Instruction, Shape, computations, elements, num_bytes, numbers, shape_of

_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Equal exchanges between devices, in one run of the program.

    Attributes:
        kind: HLO's name, such as `all-reduce`.
        group_size: Devices that take part in each.
        count: How many there are.
        num_bytes: Of all of them together, on each device: of the whole array, before it is scattered or after it is
            gathered.
    """

    kind: str
    group_size: int
    count: int
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
    """What one device does in one run of a program.

    Attributes:
        product_flops: Floating-point operations of matrix products and convolutions; a multiplication and an addition
            are two. What a convolution would multiply with its padding isn't counted.
        product_flops_once: The same with the body of each loop counted once, as XLA's cost analysis does.
        collectives: Exchanges between devices.
    """

    product_flops: int
    product_flops_once: int
    collectives: tuple[Collective, ...]


def read_program(text: str) -> Program:
    """Reads the optimized HLO of a compiled program.

    The body of a loop counts as often as it runs where that number is known to the compiler or is the constant of a
    condition `index < constant`; of any other loop it counts once.

    Args:
        text: From `jax.stages.Compiled.as_text()`.

    Returns:
        What a device does.

    Raises:
        ValueError: If the text is no HLO module.
    """
    module = _Module(text)
    exchanges: collections.Counter[tuple[str, int, str]] = collections.Counter()
    sizes: dict[tuple[str, int, str], int] = {}
    for instruction, times in module.collectives(module.entry):
        exchange = module.exchange(instruction)
        # TPU compilers write an exchange that runs beside computations into each of them, under the same channel.
        exchanges[exchange] = max(exchanges[exchange], times)
        sizes[exchange] = module.exchanged_bytes(instruction)
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for exchange, times in exchanges.items():
        count, num_bytes = found.get(exchange[:2], (0, 0))
        found[exchange[:2]] = count + times, num_bytes + times * sizes[exchange]
    product_flops, product_flops_once = module.flops(module.entry)
    return Program(
        product_flops,
        product_flops_once,
        collectives=tuple(Collective(*key, *values) for key, values in sorted(found.items())),
    )


class _Module:
    """The computations of a module by name."""

    def __init__(self, text: str) -> None:
        self.computations, self.entry = computations(text)
        self._flops: dict[str, tuple[int, int]] = {}
        partitions = re.search(r"\bnum_partitions=(\d+)", text)
        replicas = re.search(r"\breplica_count=(\d+)", text)
        self._num_devices = int(partitions[1] if partitions else 1) * int(replicas[1] if replicas else 1)

    def flops(self, computation: str) -> tuple[int, int]:
        """Of the products of a computation and of all that it runs: in all, and with each loop's body once."""
        if computation not in self._flops:
            total, once = 0, 0
            for instruction in self.computations[computation].values():
                own = self._own_flops(computation, instruction)
                called = [self.flops(name) for name in instruction.called if name in self.computations]
                total += own + self.trips(instruction) * sum(each for each, _ in called)
                once += own + sum(each for _, each in called)
            self._flops[computation] = total, once
        return self._flops[computation]

    def collectives(self, computation: str, times: int = 1) -> Iterable[tuple[Instruction, int]]:
        """Each exchange that a computation starts, and how often."""
        for instruction in self.computations[computation].values():
            if instruction.opcode.removesuffix("-start") in _COLLECTIVES:
                yield instruction, times
            for called in instruction.called:
                if called in self.computations:
                    yield from self.collectives(called, times * self.trips(instruction))

    def exchange(self, instruction: Instruction) -> tuple[str, int, str]:
        """Kind, devices and channel of an exchange; without channels each is one by itself."""
        channel = re.search(r"\bchannel_id=(\d+)", instruction.attributes)
        size = _group_size(instruction.attributes) or self._num_devices
        return instruction.opcode.removesuffix("-start"), size, channel[1] if channel else f"%{instruction.name}"

    def exchanged_bytes(self, instruction: Instruction) -> int:
        """Bytes of the whole array that an exchange is about."""
        kind, size, _ = self.exchange(instruction)
        result = instruction.type
        if instruction.opcode.endswith("-start") and kind != "all-reduce" and result.startswith("("):
            # (what goes in, what comes out, ...)
            result = elements(result)[1]
        return num_bytes(result) * (size if kind == "reduce-scatter" else 1)

    def trips(self, instruction: Instruction) -> int:
        """How often an instruction runs what it calls."""
        if instruction.opcode != "while":
            return 1
        known = _TRIPS.search(instruction.attributes)
        if known:
            return int(known[1])
        named = re.search(r"\bcondition=%?([\w.\-]+)", instruction.attributes)
        instructions = self.computations.get(named[1], {}) if named else {}
        return _bound(instructions.values())

    def _own_flops(self, computation: str, instruction: Instruction) -> int:
        if instruction.opcode not in ("dot", "convolution"):
            return 0
        left, right = (shape_of(self.computations[computation][name].type) for name in instruction.operands[:2])
        output = shape_of(instruction.type)
        if instruction.opcode == "dot":
            contracted = numbers(instruction.attributes, "lhs_contracting_dims")
            return 2 * math.prod(output) * math.prod(left[axis] for axis in contracted)
        return 2 * _convolution_products(instruction.attributes, left, right, output)


def _bound(condition: Iterable[Instruction]) -> int:
    """What the index of a loop stays below, if the condition compares it with the only constant there; else 1."""
    instructions = list(condition)
    constants = [int(each.argument) for each in instructions if each.opcode == "constant" and each.argument.isdigit()]
    compares = any(each.opcode == "compare" and "direction=LT" in each.attributes for each in instructions)
    return constants[0] if compares and len(constants) == 1 else 1


def _group_size(attributes: str) -> int:
    """Devices of each group of an exchange, from any of HLO's three ways to write groups; 0 if it means all."""
    if mesh := re.search(r"\breplica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if tiled := re.search(r"\breplica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(tiled[2])
    if listed := re.search(r"\breplica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    return 2 if "source_target_pairs=" in attributes else 0


def _convolution_products(attributes: str, left: Shape, right: Shape, output: Shape) -> int:
    """Multiplications of a convolution, without those with padding or with the zeros of a dilation.

    The matrix products of TPUs are written as convolutions, too.
    """
    labels = re.search(r"\bdim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if not labels:
        raise ValueError(f"a convolution without dim_labels: {attributes[:200]}")
    window = _WINDOW.search(attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    spatial = sorted(set(labels[3]) - {"b", "f"})

    def each(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * len(spatial)

    valid = 1
    for axis, size, stride, pad, left_dilation, right_dilation in zip(
        spatial, *(each(*field) for field in _WINDOW_FIELDS), strict=True
    ):
        # A product counts where a number of the kernel meets a number of the image.
        length = left[labels[1].index(axis)]
        low = int(pad.split("_")[0])
        places = (
            out * int(stride) + offset * int(right_dilation) - low
            for out in range(output[labels[3].index(axis)])
            for offset in range(int(size))
        )
        valid *= sum(place % int(left_dilation) == 0 and 0 <= place // int(left_dilation) < length for place in places)
    inputs = right[labels[2].index("i")]  # of one group
    groups = re.search(r"\bbatch_group_count=(\d+)", attributes)
    batch = left[labels[1].index("b")] // int(groups[1] if groups else 1)
    return batch * inputs * output[labels[3].index("f")] * valid


_WINDOW_FIELDS = (("size", "1"), ("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))
