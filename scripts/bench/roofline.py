"""Where the time of a compiled step goes: the floor of each part, and what the profiler measured.

The floor of an operation is the longer of two times: its floating-point operations at the rate of a large matrix
product, and the bytes that it reads and writes at the rate of a large copy. The floor of a part is the sum of those of
its operations.

    python scripts/benchmark.py roofline train --model=S/16 --batch=16
    python scripts/benchmark.py roofline train --model=B/16 --batch=256 --device=h200

The second compiles for a device that isn't present: nothing is run, and the rates are those of DEVICES. Only matrix
products and convolutions count as operations, and only what passes through the device's memory as bytes: what a TPU
keeps in the memory of its core is free.
"""

import collections
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from bench.model import NUM_CLASSES, Ours, read_config
from bench.report import describe_machine, measure_ceiling, seconds_of, take_turns, write_report
from jax.experimental import topologies

from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Config
from vit_jax.errors import InputError, Parser
from vit_jax.experiment import batch_shapes, build_experiment
from vit_jax.models.layers import compute_dtype
from vit_jax.preflight.hlo import Instruction, parse, size_of, trips

# FLOP/s of a large bfloat16 matrix product, and bytes/s of a large copy, read and written. Those of the GPU were
# reported for the card, to be replaced by what `roofline` without --device measures on one; those of TPUs are from
# their data sheets.
DEVICES = {"h200": (790e12, 4.3e12), "v5e": (197e12, 0.819e12), "v6e": (918e12, 1.64e12)}
# Instructions that do no work.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "iota", "after-all", "opt-barrier"}


class Operation(NamedTuple):
    """An operation that a compiled program launches, most often a fusion of many.

    Attributes:
        times: how often it runs.
        moved: bytes that one run reads and writes.
        flops: of its matrix products in one run.
        cycles: that the compiler expects one run to take; only a TPU's says, not for prefetches and Pallas kernels.
        path: JAX's name for where in the program it comes from.
    """

    name: str
    times: int
    moved: int
    flops: int
    cycles: int
    path: str


def operations(text: str) -> list[Operation]:
    """Return the operations that an HLO module launches in one run."""
    computations, entry = parse(text)
    return list(_launched(entry, 1, computations))


def _launched(name: str, times: int, computations: dict[str, list[Instruction]]) -> Iterator[Operation]:
    shapes = {instruction.name: instruction.shape for instruction in computations[name]}
    for instruction in computations[name]:
        if (
            instruction.operation in FREE
            or re.search('"(ConcatBitcast|AllocateBuffer)"', instruction.attributes)
            or instruction.operation.endswith("-done")
        ):
            continue
        if instruction.operation in ("while", "call", "conditional"):
            number = times * (trips(instruction, computations) if instruction.operation == "while" else 1)
            for called in instruction.called:
                yield from _launched(called, number, computations)
            continue
        path = re.search(r'op_name="([^"]*)"', instruction.attributes)
        cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
        cost = _cost(instruction, shapes, computations)
        yield Operation(instruction.name[1:], times, *cost, int(cycles[1]) if cycles else 0, path[1] if path else "")


def _cost(
    instruction: Instruction, shapes: dict[str, str], computations: dict[str, list[Instruction]]
) -> tuple[int, int]:
    """Return the bytes that an instruction moves, and its floating-point operations."""
    inner = computations.get(instruction.called[0]) if instruction.called else None
    if instruction.operation.startswith("fusion") and inner is not None:
        inside = {part.name: part.shape for part in inner}
        work = [part for part in inner if part.operation not in FREE]
        if [part.operation for part in work] == ["fusion"]:  # A fusion that is launched asynchronously.
            return _cost(work[0], inside, computations)
        return _moved(inner, computations), _fused_flops(inner, computations)
    if instruction.operation == "copy-start":  # Its shape is that of the input and the output.
        return stored(instruction.shape), 0
    if instruction.operation == "slice-start":  # Its shape is that of the whole input and the output.
        cut = instruction.shape.split("), ", 1)[1]
        return size_of(cut) + stored(cut), 0
    inputs = sum(stored(shapes[name]) for name in instruction.inputs if name in shapes)
    return inputs + stored(instruction.shape), _flops(instruction, shapes)


def stored(shape: str) -> int:
    """Return the bytes of a shape that lie in the device's memory, not in another space such as that of a core."""
    return size_of(re.sub(r"\w+\[[\d,]*\]\{[^}]*S\([^}]*\}", "", shape))


def _fused_flops(fused: list[Instruction], computations: dict[str, list[Instruction]]) -> int:
    shapes = {part.name: part.shape for part in fused}
    nested = (name for part in fused if part.operation == "fusion" for name in part.called)
    return sum(_flops(part, shapes) for part in fused) + sum(
        _fused_flops(computations[name], computations) for name in nested
    )


def _moved(fused: list[Instruction], computations: dict[str, list[Instruction]]) -> int:
    """Return the bytes that a fusion reads and writes; arrays sliced or updated in place count only in that part."""
    shapes = {part.name: part.shape for part in fused}
    updates = [part for part in fused if part.operation == "dynamic-update-slice"]
    saved = sum(size_of(part.shape) - size_of(shapes[part.inputs[1]]) for part in updates)
    written = max(stored(fused[-1].shape) - saved, 0)  # The root comes last.
    return written + sum(_read(part, fused, computations) for part in fused if part.operation == "parameter")


def _read(source: Instruction, fused: list[Instruction], computations: dict[str, list[Instruction]]) -> int:
    """Return the bytes that a fusion, or a fusion within it, reads of one of its arrays."""
    total = 0
    for use in (part for part in fused if source.name in part.inputs):
        if use.operation in ("dynamic-slice", "slice", "gather"):
            total += size_of(use.shape)
        elif use.operation == "bitcast":
            total += _read(use, fused, computations)
        elif use.operation == "fusion":
            inner = computations[use.called[0]]
            taken = {str(i) for i, name in enumerate(use.inputs) if name == source.name}
            entries = (part for part in inner if part.operation == "parameter" and part.operands in taken)
            total += sum(_read(part, inner, computations) for part in entries)
        elif use.operation != "dynamic-update-slice" or use.inputs[0] != source.name:
            return stored(source.shape)
    return min(total, stored(source.shape))


def _flops(instruction: Instruction, shapes: dict[str, str]) -> int:
    """Return the operations of a matrix product, a convolution or cuDNN attention, else 0."""
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    if target and "fmha" in target[1]:
        batch, heads, tokens, head_dim = _sizes(instruction.shape)
        # Two products forward; backward, one is recomputed and four are gradients.
        return (10 if "Backward" in target[1] else 4) * batch * heads * tokens**2 * head_dim
    if instruction.operation == "convolution":
        return _convolution_flops(instruction, shapes)
    if instruction.operation == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1].split(",")
    elif target and ("gemm" in target[1] or "matmul" in target[1]):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)[1]
        contracted = contracted.replace('"', "").split(",")
    else:
        return 0
    left = _sizes(shapes[instruction.inputs[0]])
    return 2 * math.prod(left[int(axis)] for axis in contracted) * math.prod(_sizes(instruction.shape))


def _convolution_flops(instruction: Instruction, shapes: dict[str, str]) -> int:
    """Return the operations of a convolution, as which a TPU's compiler writes every matrix product too.

    Only taps on elements of the input count: the batch axis of a product becomes a spatial one, with gaps so wide that
    a single tap of each output hits an element.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes).groups()
    source, kernel, out = (
        dict(zip(axes, _sizes(shape), strict=True))
        for axes, shape in zip(labels, [*(shapes[name] for name in instruction.inputs), instruction.shape], strict=True)
    )
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    window = dict(each.split("=") for each in window[1].split()) if window else {}
    count = out["b"] * out["f"] * kernel["i"]
    for i, axis in enumerate(sorted(set(kernel) - {"i", "o"})):
        stride, gap, spread = (
            int(window[key].split("x")[i]) if key in window else 1 for key in ("stride", "lhs_dilate", "rhs_dilate")
        )
        before = int(window["pad"].split("x")[i].split("_")[0]) if "pad" in window else 0
        taps = np.add.outer(np.arange(out[axis]) * stride, np.arange(kernel[axis]) * spread) - before
        count *= int(np.sum((taps >= 0) & (taps <= (source[axis] - 1) * gap) & (taps % gap == 0)))
    return 2 * count


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in re.search(r"\[([\d,]*)\]", shape)[1].split(",") if size]


def part_of(operation: Operation) -> str:
    """Return the part of a step under which an operation is reported."""
    path = operation.path
    phase = "backward" if "transpose(" in path else "forward" if "jvp(" in path or "train_step" not in path else ""
    if not phase:
        return "optimizer"
    if "dynamic_update_index" in path or "broadcast_in_dim" in path and not operation.flops:
        return "between blocks: what is stored"
    if "dot_product_attention" in path or "attend" in path:
        return f"{phase}: attention"
    if operation.flops:
        return f"{phase}: linear layers"
    return f"{phase}: norms, GELU, biases, residuals"


def measured(run: Any, steps: int = 3) -> dict[str, float]:
    """Return the seconds per step of every operation, from the profiler."""
    jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                result = run()
            jax.block_until_ready(result)
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
        seconds = collections.Counter()
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    if name := dict(event.stats).get("hlo_op"):
                        seconds[name] += event.duration_ns / 1e9 / steps
    return seconds


def measure_bandwidth(rounds: int = 5) -> float:
    """Return the bytes/s, read and written, of one large copy on one device."""
    size = 2**28 if jax.default_backend() == "cpu" else 2**32
    source = jax.numpy.arange(size // 4, dtype="float32")
    copy = jax.jit(lambda x: x + 1)
    return 2 * size / take_turns({"": seconds_of(lambda: copy(source), 0.2)}, rounds)[""]


def absent_device(name: str) -> list[jax.Device]:
    """Return a GPU or TPU that is not present, for which XLA can compile; needs the [cuda] or [tpu] extra, no driver.

    Raises:
        InputError: the device is unknown, or its compiler is not installed.
    """
    if name not in DEVICES:
        raise InputError(f"--device={name}: no such device; choose one of {', '.join(DEVICES)}")
    jax.config.update("jax_platforms", "cpu")
    target = Path(__file__).with_name(f"{name}.txtpb")
    if target.exists():
        facts = dict(platform="cuda", topology_name="", target_config=target.read_text(), topology="1x1x1")
    else:
        facts = dict(platform="tpu", topology_name=f"{name}:2x2")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # Or it asks the network what machine this is.
    try:
        return list(topologies.get_topology_desc(**facts).devices)[:1]
    except Exception as error:  # The plugin, or its absence, can raise anything.
        extra = "cuda" if target.exists() else "tpu"
        raise InputError(f"--device={name}: no compiler for it ([{extra}] extra): {str(error)[:200]}") from error


def main(argv: list[str]) -> None:
    """Read the command line, compile and report."""
    parser = Parser(__doc__)
    parser.add_argument("what", choices=["train", "infer"])
    parser.add_argument("--model", default="S/16", metavar="NAME")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of config.model")
    parser.add_argument("--device", metavar="NAME", help="compile for one that is not present: " + ", ".join(DEVICES))
    parser.add_argument("--each", type=int, default=0, metavar="N", help="also list the N most expensive operations")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    train = args.what == "train"
    if args.device:
        attention = "cudnn" if args.device == "h200" else "xla"
        config = read_config(args.model, args, dtype="bfloat16", attention=attention)
        compiled, rates, seconds = _compile(config, absent_device(args.device), train), DEVICES[args.device], {}
    else:
        config = read_config(args.model, args)
        rates = measure_ceiling(str(compute_dtype(config.model))), measure_bandwidth()
        ours = Ours(config, train, jax.devices()[:1])
        compiled, seconds = ours.compiled, measured(ours.run)
    temporary = compiled.memory_analysis().temp_size_in_bytes
    print(f"{describe_machine()}; {rates[0] / 1e12:.3g} TFLOP/s, {rates[1] / 1e9:.3g} GB/s")
    print(f"temporary arrays: {temporary / 1e9:.3g} GB", flush=True)
    launched = operations(compiled.as_text())
    rows = [_row(part, group, rates, seconds) for part, group in _grouped(launched).items()]
    rows.append(_row("sum", launched, rates, seconds))
    write_report(rows, args.json, args.markdown)
    if args.each:
        dearest = sorted(launched, key=lambda operation: -_floor(operation, rates))[: args.each]
        print()
        write_report(
            [
                _row(operation.name, [operation], rates, seconds) | {"path": operation.path[-60:]}
                for operation in dearest
            ]
        )


def _compile(config: Config, devices: list[jax.Device], train: bool) -> jax.stages.Compiled:
    mesh = make_mesh(config.mesh, devices)
    experiment = build_experiment(config, mesh, NUM_CLASSES, examples=1_281_167)
    batch = batch_shapes(config, mesh, experiment.task)
    if train:
        return experiment.train_step.lower(experiment.shapes, batch, experiment.numbers).compile()
    return jax.jit(experiment.eval_step).lower(experiment.shapes.params, batch).compile()


def _grouped(launched: list[Operation]) -> dict[str, list[Operation]]:
    groups = collections.defaultdict(list)
    for operation in launched:
        groups[part_of(operation)].append(operation)
    return dict(sorted(groups.items()))


def _floor(operation: Operation, rates: tuple[float, float]) -> float:
    return operation.times * max(operation.flops / rates[0], operation.moved / rates[1])


def _row(part: str, group: list[Operation], rates: tuple[float, float], seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "part": part,
        "launches": sum(operation.times for operation in group),
        "GFLOP": sum(operation.times * operation.flops for operation in group) / 1e9,
        "GB": sum(operation.times * operation.moved for operation in group) / 1e9,
        "floor ms": 1e3 * sum(_floor(operation, rates) for operation in group),
        "planned Mcycles": sum(operation.times * operation.cycles for operation in group) / 1e6 or None,
        "measured ms": 1e3 * sum(seconds.get(operation.name, 0) for operation in group) if seconds else None,
    }
