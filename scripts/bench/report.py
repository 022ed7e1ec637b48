"""What the benchmarks share: taking turns, medians, and reporting."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import InputError

# Instructions that a benchmark can be limited to, from old to new, and oneDNN's names of them.
ISAS = {"avx2": "AVX2", "avx512": "AVX512_CORE"}


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median of what each contender measures in its turns."""
    return {name: statistics.median(values) for name, values in every_turn(contenders, rounds).items()}


def every_turn(contenders: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[Any]]:
    """Return all that each contender measures, running them in turn `rounds` times.

    Other load on the machine then affects all of them equally.

    Raises:
        InputError: there is no turn.
    """
    if rounds < 1:
        raise InputError(f"--rounds={rounds}: must be at least 1")
    measured = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            measured[name].append(run())
    return measured


def seconds_of(run: Callable[[], Any], seconds: float) -> Callable[[], float]:
    """Return a function that measures the seconds per call, over as many calls as take about `seconds`."""
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    number = max(1, round(seconds / (time.perf_counter() - start)))

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(number):
            result = run()
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / number

    return measure


def measure_ceiling(dtype: str, rounds: int = 5) -> float:
    """Return the FLOP/s of one large matrix product on one device, the reference for utilisation."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    left, right = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / take_turns({"": seconds_of(lambda: product(left, right), 0.2)}, rounds)[""]


def limit_isa(isa: str) -> None:
    """Make XLA and the peers, started later, use no newer instructions; before JAX has looked for devices.

    Raises:
        InputError: this CPU does not have them.
    """
    if isa not in cpu_isas():
        raise InputError(f"--isa={isa}: this CPU has {', '.join(cpu_isas()) or 'neither'}")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={isa.upper()}"
    if isa != cpu_isas()[-1]:
        # YNNPACK, which computes XLA's matrix products, takes all that the CPU has; oneDNN in its place does not.
        flags += " --xla_cpu_experimental_ynn_fusion_type=invalid"
    os.environ["XLA_FLAGS"] = flags
    os.environ |= {"ATEN_CPU_CAPABILITY": isa, "ONEDNN_MAX_CPU_ISA": ISAS[isa], "MKL_ENABLE_INSTRUCTIONS": isa.upper()}


def cpu_isas() -> list[str]:
    """Return those of ISAS that this CPU has; none where there is no /proc."""
    file = Path("/proc/cpuinfo")
    words = file.read_text().split() if file.exists() else []
    return [isa for isa in ISAS if {"avx512": "avx512f"}.get(isa, isa) in words]


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    limited = re.search(r"xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    isa = limited[1].lower() if limited else (cpu_isas() or [platform.machine()])[-1]
    return f"{name[1] if name else platform.machine()}, {isa}"


def reset_peak() -> None:
    """Make the largest resident memory start anew, so that it is that of one model after another; on Linux only."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


def describe_machine() -> str:
    """Return the device and the versions that figures depend on."""
    device = jax.devices()[0]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")]
    kind = f"{os.cpu_count()} cores of {_cpu()}" if device.platform == "cpu" else device.device_kind
    return (
        f"{jax.device_count()} x {device.platform} ({kind}), {', '.join(versions)}, Python {platform.python_version()}"
    )


def write_report(rows: list[dict[str, Any]], json_file: Path | None = None, markdown: Path | None = None) -> None:
    """Print rows with the same keys as a table; write them as JSON, and add them to a page of `benchmarks/results/`."""
    names = list(rows[0])
    cells = [[_shown(row[name]) for name in names] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    for line in (names, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    command = shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])
    facts = {"date": str(datetime.date.today()), "machine": describe_machine(), "command": command}
    if json_file is not None:
        json_file.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
    if markdown is not None:
        table = [f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *cells)]
        with markdown.open("a") as file:
            print(f"\n{facts['date']}, {facts['machine']}\n\n    {command}\n", *table, sep="\n", file=file)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
