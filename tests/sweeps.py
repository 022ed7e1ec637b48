"""Run directories as training and a sweep leave them, made in an instant."""

import dataclasses
import json
from pathlib import Path

from tests.tiny import CONFIG
from vit_jax.config import Config, Data
from vit_jax.config.files import override
from vit_jax.runs.directory import Facts, open_workdir
from vit_jax.runs.metrics import Writer

NAMES = ("cat", "dog")
SIZE = {"parameters": 1234, "step_flops": 1000, "steps": 20, "devices": 2}
TESTED = dataclasses.replace(CONFIG, data=Data(name="digits", test="test"))


def make_run(
    folder: Path,
    overrides: dict[str, str] | None = None,
    accuracy: float = 0.5,
    *,
    config: Config = CONFIG,
    steps: int = 20,
    size: dict[str, int] | None = SIZE,
    test: float | None = None,
) -> Path:
    """Make the directory of a run that got to `steps`, evaluated every 10 with the best in the middle."""
    config = override(config, overrides or {})
    open_workdir(folder, Facts(config, NAMES), size)
    writer = Writer(folder, 0)
    for step in range(5, steps + 1, 5):
        record = {"train/loss": 2.0 / step, "train/seconds": step / 2, "train/memory_gib": 0.25, "data/bad": 0}
        if step % 10 == 0:
            found = accuracy + (0.0625 if step == 10 else 0.0)
            record |= {"val/accuracy": found, "val/accuracy_low": found - 0.1, "val/loss": 1 - found, "val/count": 36}
        writer.write(step, record)
    if test is not None:
        writer.write(steps, {"test/accuracy": test, "test/loss": 1 - test, "test/count": 36, "test/step": 10})
    writer.close()
    return folder


def add_sweep(folder: Path, overrides: dict[str, str], *events: dict, spec: str = "tiny.py", log: str = "") -> Path:
    """Add what a sweep writes beside a run, which may not have got so far as to have a directory of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [
        "/bin/python3",
        "-m",
        "vit_jax.train",
        f"--config={spec}",
        *(f"--config.{k}={v}" for k, v in overrides.items()),
    ]
    command = {"config": spec, "overrides": overrides, "fixed": {"batch": "64"}, "argv": argv}
    (folder / "command.json").write_text(json.dumps(command))
    (folder / "attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "log.txt").write_text(log)
    return folder


def started() -> dict:
    """Return the event of an attempt that starts."""
    return {"event": "start", "time": "2026-01-01T00:00:00+00:00", "host": "here", "pid": 1}


def ended(code: int, *lines: str, **more) -> dict:
    """Return the event of an attempt that ends."""
    end = {"event": "end", "time": "2026-01-01T00:01:00+00:00", "seconds": 60.5, "exit": code}
    return end | ({"lines": list(lines)} if code else {}) | more
