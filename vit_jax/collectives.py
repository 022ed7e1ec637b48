"""What the devices send each other in one run of a program, read from the program as it was partitioned."""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16} | {f"{kind}{bits}": bits for kind in "suf" for bits in (8, 16, 32, 64)}

CALLED = r"(?:body|calls|to_apply|branch_computations)=\{?(%[^,\s}]+(?:, ?%[^,\s}]+)*)"


class Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    operands: str
    attributes: str


def received(text: str) -> dict[str, int]:
    """Return {kind: bytes} that each device receives from others in one run of a partitioned HLO module.

    A collective among n devices is counted as a ring makes it: of a gathered array of B bytes a device receives
    B (n - 1) / n, of one that is reduced and scattered as much, of one that is reduced to all twice as much. What a
    loop does counts as often as it runs, or once where only the run would tell; of a conditional, all branches.

    Two things are counted as the compilers of accelerators make them: an all-reduce of which each device goes on with
    its part alone is a reduce-scatter, and all-reduces whose results are added are one, of the sum.

    Raises:
        ValueError: a group of devices can't be read.
    """
    computations, entry = _parse(text)
    return {kind: round(total) for kind, total in _of(entry, computations, {}).items() if round(total)}


def _of(name: str, computations: dict[str, list[Instruction]], known: dict[str, dict[str, float]]) -> dict[str, float]:
    if name in known:
        return known[name]
    totals = dict.fromkeys(KINDS, 0.0)
    uses = collections.defaultdict(list)
    for instruction in computations[name]:
        for operand in re.findall(r"%[\w.-]+", instruction.operands):
            uses[operand].append(instruction.operation)
    reduced = {}  # What all-reduces, or sums of them, moved.
    for instruction in computations[name]:
        operands = instruction.operands.split(", ")
        if instruction.operation in KINDS:
            kind, total = _moved(instruction, set(uses[instruction.name]))
            totals[kind] += total
            if kind == "all-reduce" and len(uses[instruction.name]) == 1:
                reduced[instruction.name] = total
        elif instruction.operation == "add" and all(operand in reduced for operand in operands):
            totals["all-reduce"] -= reduced[operands[0]]
            reduced[instruction.name] = reduced[operands[1]]
        times = _trips(instruction, computations) if instruction.operation == "while" else 1
        for inner in re.findall(CALLED, instruction.attributes):
            for called in inner.split(","):
                for kind, total in _of(called.strip(), computations, known).items():
                    totals[kind] += times * total
    known[name] = totals
    return totals


def _moved(instruction: Instruction, uses: set[str]) -> tuple[str, float]:
    size, number = _bytes(instruction.shape), _group(instruction.attributes)
    kind, share = instruction.operation, (number - 1) / number
    if kind == "collective-permute":
        return kind, float(size)
    if kind == "all-reduce":
        return ("reduce-scatter", size * share) if uses == {"dynamic-slice"} else (kind, 2 * size * share)
    return kind, size * share * (number if kind == "reduce-scatter" else 1)


def _bytes(shape: str) -> int:
    parts = re.findall(r"([a-z]+\d*)[a-z0-9]*\[([\d,]*)\]", shape)
    return sum(math.prod(map(int, filter(None, sizes.split(",")))) * BITS[dtype] for dtype, sizes in parts) // 8


def _group(attributes: str) -> int:
    """Return how many devices take part in one group of a collective."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? \{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(found[1].split(","))
    if "source_target_pairs" in attributes:
        return 2
    raise ValueError(f"the group of devices of a collective can't be read: {attributes[:200]}")


def _trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Return how often a loop runs: the condition of a scan compares a counter, from 0 on, with a constant."""
    condition = computations[re.search(r"condition=(%[^,\s]+)", loop.attributes)[1]]
    limits = [part.operands for part in condition if part.operation == "constant" and part.shape[1:].startswith("32[]")]
    plain = len(limits) == 1 and len(condition) <= 4 and "direction=LT" in condition[-1].attributes
    return int(limits[0]) if plain else 1


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation of an HLO module, and the name of the one that it begins with."""
    computations, entry = {}, ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?(%\S+) .*\{$", line):
            current = computations[found[2]] = []
            entry = found[2] if found[1] else entry
        elif found := re.match(r"  (?:ROOT )?(%\S+) = (\(.*?\)(?= )|\S+) ([\w-]+)\((.*?)\)(.*)$", line):
            current.append(Instruction(*found.groups()))
    return computations, entry
