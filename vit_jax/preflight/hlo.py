"""Parses the text of an HLO module, a program as XLA compiled it."""

import math
import re
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16} | {f"{kind}{bits}": bits for kind in "suf" for bits in (8, 16, 32, 64)}
CALLED = r"(?:body|calls|to_apply|branch_computations)=\{?(%[^,\s}]+(?:, ?%[^,\s}]+)*)"


class Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    operands: str
    attributes: str

    @property
    def inputs(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%[\w.-]+", self.operands)

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls."""
        return [name.strip() for names in re.findall(CALLED, self.attributes) for name in names.split(",")]


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation of an HLO module, and the name of its entry computation."""
    computations, entry = {}, ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?(%\S+) .*\{$", line):
            current = computations[found[2]] = []
            entry = found[2] if found[1] else entry
        elif found := re.match(r"  (?:ROOT )?(%\S+) = (\(.*?\)(?= )|\S+) ([\w-]+)\((.*?)\)(.*)$", line):
            current.append(Instruction(*found.groups()))
    return computations, entry


def size_of(shape: str) -> int:
    """Return the bytes of an array of this shape, or of all arrays in a tuple."""
    parts = re.findall(r"([a-z]+\d*)[a-z0-9]*\[([\d,]*)\]", shape)
    return sum(math.prod(map(int, filter(None, sizes.split(",")))) * BITS[dtype] for dtype, sizes in parts) // 8


def trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Return how often a loop runs, 1 if unknown; a scan's condition compares a counter from 0 with a constant."""
    if known := re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes):
        return int(known[1])
    condition = computations[re.search(r"condition=(%[^,\s]+)", loop.attributes)[1]]
    limits = [part.operands for part in condition if part.operation == "constant" and part.shape[1:].startswith("32[]")]
    plain = len(limits) == 1 and len(condition) <= 4 and "direction=LT" in condition[-1].attributes
    return int(limits[0]) if plain else 1
