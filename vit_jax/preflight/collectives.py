"""Bytes that devices send each other in one run of a program, read from the partitioned program."""

import collections
import math
import re

from vit_jax.preflight.hlo import Instruction, parse, size_of, trips

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


def received(text: str) -> dict[str, int]:
    """Return {kind: bytes} that each device receives from others in one run of a partitioned HLO module.

    A collective among n devices is counted as a ring: for an array of B bytes, a device receives B (n - 1) / n in an
    all-gather or a reduce-scatter, and twice that in an all-reduce. The body of a loop counts as often as it runs, or
    once if that is only known at run time; of a conditional, all branches count.

    Two cases are counted as accelerator compilers implement them: an all-reduce is a reduce-scatter if each device only
    uses its part of the result, and all-reduces whose results are added are a single all-reduce of the sum.

    Raises:
        ValueError: the group of devices of a collective can't be read.
    """
    computations, entry = parse(text)
    return {kind: round(total) for kind, total in _of(entry, computations, {}).items() if round(total)}


def _of(name: str, computations: dict[str, list[Instruction]], known: dict[str, dict[str, float]]) -> dict[str, float]:
    if name in known:
        return known[name]
    totals = dict.fromkeys(KINDS, 0.0)
    uses = collections.defaultdict(list)
    for instruction in computations[name]:
        for operand in instruction.inputs:
            uses[operand].append(instruction.operation)
    reduced = {}  # Bytes moved by all-reduces, or by sums of them.
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
        times = trips(instruction, computations) if instruction.operation == "while" else 1
        for called in instruction.called:
            for kind, total in _of(called, computations, known).items():
                totals[kind] += times * total
    known[name] = totals
    return totals


def _moved(instruction: Instruction, uses: set[str]) -> tuple[str, float]:
    size, number = size_of(instruction.shape), _group(instruction.attributes)
    kind, share = instruction.operation, (number - 1) / number
    if kind == "collective-permute":
        return kind, float(size)
    if kind == "all-reduce":
        return ("reduce-scatter", size * share) if uses == {"dynamic-slice"} else (kind, 2 * size * share)
    return kind, size * share * (number if kind == "reduce-scatter" else 1)


def _group(attributes: str) -> int:
    """Return the number of devices in one group of a collective."""
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
