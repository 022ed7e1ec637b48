"""The table of runs: what each one is, found and cost, read from its directory."""

import dataclasses
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from vit_jax.config import flatten
from vit_jax.config.coerce import literal
from vit_jax.config.experiment import is_runtime
from vit_jax.config.files import load_config
from vit_jax.errors import INTERRUPTED, STOPPED, InputError
from vit_jax.runs.directory import read_facts
from vit_jax.runs.records import read_records
from vit_jax.sweeps.attempt import attempts, last_lines
from vit_jax.tasks import best_metric, is_lower_better
from vit_jax.weights.files import replacing

STATUSES = ("done", "failed", "pruned", "stopped", "unfinished")
MARKS = ("run.json", "command.json", "metrics.jsonl")  # A directory with one of them is that of a run.
ASIDE = ("count", "_low", "_high")  # beside a metric: the number of pictures, and its interval
COSTS = ("train/seconds", "train/memory_gib")
COUNTS = {
    "step": pa.int64(),
    "steps": pa.int64(),
    "parameters": pa.int64(),
    "flops": pa.float64(),
    "seconds": pa.float64(),
    "device_seconds": pa.float64(),
    "memory_gib": pa.float64(),
    "exit": pa.int64(),
    "error": pa.string(),
    "ended": pa.string(),
}

_SIGNALS = {number.value: number.name for number in signal.Signals}


class Row(NamedTuple):
    """A run.

    Attributes:
        run: its name, unique among those read together.
        status: "done", "failed", "pruned" by a search, "stopped" so that it can be continued, or "unfinished": running,
            or killed together with the sweep.
        config: {"optim.lr": 0.001}: all of it, or what is known of it if the run never got so far.
        started: whether it got so far that it recorded its config.
        settings: the keys that it sets itself, unlike the others of its sweep.
        command: that a sweep started it with.
        metric: that selects its best checkpoint, such as "val/accuracy".
        metrics: of the last evaluated step, by their names, and the best, as "best val/accuracy"; None: not finite.
        counts: the columns `COUNTS`, in steps, floating-point operations, seconds and GiB; when a sweep's attempt at it
            ended, as "2026-11-26T04:06:21+00:00".
        lines: the last of its output, unless it is done.
        records: of `metrics.jsonl`.
    """

    run: str
    directory: Path
    status: str
    config: dict[str, Any]
    started: bool
    settings: dict[str, str]
    spec: str | None
    command: list[str]
    metric: str | None
    metrics: dict[str, float | int | None]
    counts: dict[str, Any]
    lines: list[str]
    records: list[dict[str, Any]]


def read_runs(folders: Sequence[Path]) -> list[Row]:
    """Return the runs in some folders, each a run directory or one with run directories in it.

    Raises:
        InputError: there are none in one of them, or a file of a run can't be read.
    """
    directories = list(dict.fromkeys(Path(os.path.abspath(path)) for folder in folders for path in _runs_in(folder)))
    names = [path.name for path in directories]
    if len(set(names)) < len(names):
        common = os.path.commonpath(directories)
        names = [os.path.relpath(path, common) for path in directories]
    return [_read(path, _printable(name)) for path, name in zip(directories, names, strict=True)]


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the config keys that differ among runs, those that a sweep sets first, and `seed` last.

    Keys that don't affect what a run learns, such as where its data is, count only if a sweep sets them.
    """
    seen: dict[str, set[str]] = {}
    full = any(row.started for row in rows)
    chosen = dict.fromkeys(key for row in rows for key in row.settings)
    for row in rows:
        # What a run works out when it starts, such as the length of "auto", is no difference from one that never did.
        known = row.config if row.started or not full else {key: row.config.get(key) for key in row.settings}
        for key, value in known.items():
            seen.setdefault(key, set()).add(json.dumps(value))
    partly = {key for row in rows if row.started for key in seen if key not in row.config}
    keys = [key for key, values in seen.items() if len(values) > 1 or key in partly]
    keys = [key for key in keys if key in chosen or not is_runtime(key)]
    return sorted(keys, key=lambda key: (key == "seed", list(chosen).index(key) if key in chosen else len(chosen)))


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the metrics that any run has: those of evaluations, of the test split, of training, then the best."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    order = ("test/", "train/", "best ")
    return sorted(names, key=lambda name: next((i for i, part in enumerate(order, 1) if name.startswith(part)), 0))


def write_table(folder: Path, rows: Sequence[Row]) -> None:
    """Write `results.csv` and `results.parquet`, a row a run; lists are JSON, and directories relative to the folder.

    Raises:
        InputError: they can't be written.
    """
    columns = {"run": pa.array([row.run for row in rows]), "status": pa.array([row.status for row in rows])}
    columns |= {key: _column([row.config.get(key) for row in rows]) for key in differing(rows)}
    columns |= {name: _column([row.metrics.get(name) for row in rows]) for name in metric_names(rows)}
    columns |= {name: pa.array([row.counts[name] for row in rows], kind) for name, kind in COUNTS.items()}
    columns["directory"] = pa.array([_printable(os.path.relpath(row.directory, folder)) for row in rows])
    table = pa.table(columns)
    with replacing(folder / "results.parquet") as part:
        pa.parquet.write_table(table, part)
    with replacing(folder / "results.csv") as part:
        pa.csv.write_csv(table, part)


def _column(values: list[Any]) -> pa.Array:
    present = [value for value in values if value is not None]
    for kinds, kind in (((bool,), pa.bool_()), ((int,), pa.int64()), ((int, float), pa.float64())):
        if present and all(isinstance(value, kinds) and (kind == pa.bool_() or value is not True) for value in present):
            return pa.array([float(v) if kind == pa.float64() and v is not None else v for v in values], kind)
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array([None if text is None else _printable(text) for text in texts], pa.string())


def _printable(text: str) -> str:
    # A file's name may be no Unicode, but tables and pages are.
    return text.encode("utf-8", "replace").decode()


def _runs_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder with runs")
    if _is_run(folder):
        return [folder]
    found = sorted(path for path in folder.iterdir() if _is_run(path))
    if not found:
        raise InputError(f"{str(folder)!r} has no runs: neither it nor a folder in it has a {' or '.join(MARKS)}")
    return found


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in MARKS)


def _read(folder: Path, name: str) -> Row:
    command, run = (_json(folder / file) for file in ("command.json", "run.json"))
    records, events = read_records(folder), attempts(folder)
    config, metric = _config(folder, command, run)
    step = max((record["step"] for record in records), default=None)
    size = run.get("size", {})
    status = _status(events, _complete(folder, config, size, records))
    *_, last = events or [{}]  # An attempt that runs now, or was killed with the sweep, has no "exit" and no "lines".
    lines = [] if status == "done" else last.get("lines") or last_lines(folder)
    seconds = _largest(records, "train/seconds")
    if seconds is None and (spent := [event["seconds"] for event in events if event.get("seconds") is not None]):
        seconds = sum(spent)
    # Runs that are trained together share their devices.
    devices = size["devices"] / size.get("together", 1) if "devices" in size else None
    counts = {
        "step": step,
        "steps": size.get("steps"),
        "parameters": size.get("parameters"),
        "flops": float(size["step_flops"] * step) if step is not None and "step_flops" in size else None,
        "seconds": seconds,
        "device_seconds": seconds * devices if seconds is not None and devices is not None else None,
        "memory_gib": _largest(records, "train/memory_gib"),
        "exit": last.get("exit"),
        "error": _error(last["exit"], lines) if status == "failed" else None,
        "ended": last["time"] if last.get("event") == "end" else None,
    }
    return Row(
        name,
        folder,
        status,
        config,
        bool(run),
        command.get("overrides", {}),
        command.get("config"),
        command.get("argv", []),
        metric,
        _metrics(records),
        counts,
        lines,
        records,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error


def _config(folder: Path, command: dict[str, Any], run: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    if run:
        config = read_facts(folder).config
    else:
        settings = command.get("fixed", {}) | command.get("overrides", {})
        try:
            config = load_config(command.get("config", ""), settings)
        except InputError:  # Perhaps why the run failed, which its own output says.
            return {key: literal(text) for key, text in settings.items()}, None
    # As JSON has it: a run's tuples are lists in its run.json too.
    values = json.loads(json.dumps(flatten(dataclasses.asdict(config))))
    ranked = dataclasses.replace(config, select="auto") if config.select is None else config
    return values, best_metric(ranked)


def _complete(folder: Path, config: dict[str, Any], size: dict[str, int], records: list[dict[str, Any]]) -> bool:
    *_, last = records or [{"step": -1}]
    tested = config.get("data.test") is None or any(name.startswith("test/") for name in last)
    if "steps" in size:
        return tested and last["step"] >= size["steps"]
    return tested and (folder / "README.md").exists()  # The card, written once training is done.


def _status(events: list[dict[str, Any]], complete: bool) -> str:
    *_, last = events or [{}]
    if last.get("event") != "end":
        return "done" if complete else "unfinished"
    if last.get("pruned"):
        return "pruned"
    return {0: "done", STOPPED: "stopped", INTERRUPTED: "stopped"}.get(last["exit"], "failed")


def _error(code: int, lines: list[str]) -> str:
    if code < 0:
        return f"killed by {_SIGNALS.get(-code, f'signal {-code}')}"
    return lines[-1] if lines else f"exit code {code}, and no output"


def _metrics(records: list[dict[str, Any]]) -> dict[str, float | int | None]:
    last: dict[str, dict[str, Any]] = {}
    best: dict[str, float] = {}
    for record in records:
        found: dict[str, dict[str, Any]] = {}
        for name, value in record.items():
            kind, slash, metric = name.partition("/")
            if not slash or kind == "data" or name in COSTS:
                continue
            found.setdefault(kind, {})[name] = value
            if kind in ("train", "test") or value is None or metric.endswith(ASIDE):
                continue
            better = min if is_lower_better(name) else max
            best[f"best {name}"] = better(best.get(f"best {name}", value), value)
        last |= found
    return {name: value for kind in last.values() for name, value in kind.items()} | best


def _largest(records: list[dict[str, Any]], name: str) -> float | None:
    return max((record[name] for record in records if record.get(name) is not None), default=None)
