"""What evaluations found, in files: `NAME-STEP.json` with metrics and tables, `NAME-FIGURE-STEP.png`."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vit_jax.evaluators import Results

EVERY = 60  # seconds


def write_results(folder: Path, step: int | None, results: Results) -> None:
    """Write the results of evaluations, whose names prefix their keys; a file is replaced as a whole.

    Args:
        step: of the run; None, of weights, is left out of the names.

    Raises:
        OSError: the disk is full or can't be written.
    """
    write_tables(folder, step, results)
    for name, draw in results.figures.items():
        _draw(folder, name, step, draw)


def write_tables(folder: Path, step: int | None, results: Results) -> None:
    """Write the metrics and tables of each evaluation as one JSON object.

    Raises:
        OSError: the disk is full or can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = results.scalars | results.tables
    for name in dict.fromkeys(key.partition("/")[0] for key in found):
        own = {key.removeprefix(f"{name}/"): value for key, value in found.items() if key.startswith(f"{name}/")}
        own = own if step is None else {"step": step} | own
        _replace(folder / f"{_stem(name, step)}.json", _format(own).encode())


class Figures:
    """Draws the newest figures at most once a minute, and at the end: drawing takes longer than many an evaluation."""

    def __init__(self, folder: Path):
        self._folder, self._last = folder, time.monotonic()
        self._waiting: dict[str, tuple[int, Callable[[], bytes]]] = {}

    def add(self, step: int, results: Results) -> None:
        """Take the figures of a step; older ones of the same name that still wait are dropped.

        Raises:
            OSError: the disk is full or can't be written.
        """
        self._waiting |= {name: (step, draw) for name, draw in results.figures.items()}
        if time.monotonic() - self._last >= EVERY:
            self.finish()

    def finish(self) -> None:
        """Draw what waits.

        Raises:
            OSError: the disk is full or can't be written.
        """
        for name, (step, draw) in self._waiting.items():
            _draw(self._folder, name, step, draw)
        self._waiting.clear()
        self._last = time.monotonic()


def _stem(name: str, step: int | None) -> str:
    return name if step is None else f"{name}-{step}"


def _draw(folder: Path, name: str, step: int | None, draw: Callable[[], bytes]) -> None:
    path = folder / f"{_stem(name.replace('/', '-'), step)}.png"
    try:
        picture = draw()
    except MemoryError:
        raise
    except Exception as error:  # Matplotlib may raise anything, and no figure is worth a run.
        why = " ".join(f"{type(error).__name__}: {error}".split())
        tqdm.write(f"warning: {path.name} could not be drawn ({why})")
        return
    _replace(path, picture)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _format(content: dict[str, Any]) -> str:
    # One line for each row of a table.
    lines = []
    for key, value in content.items():
        rows = [_dump(row) for row in value] if isinstance(value, list) else []
        text = "[\n  " + ",\n  ".join(rows) + "\n ]" if rows else _dump(value)
        lines.append(f" {_dump(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dump(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    # JSON has no NaN or infinity.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
