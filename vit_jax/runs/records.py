"""The records of a run, read from its `metrics.jsonl`."""

import json
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError


def read_records(workdir: Path, last: int | None = None) -> list[dict[str, Any]]:
    """Return the records of a run so far; a last line that is being written, or was cut off, is left out.

    Args:
        last: read so many last bytes alone; None: all.

    Raises:
        InputError: the file can't be read, or a line is no record.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            start = 0 if last is None else max(path.stat().st_size - last, 0)
            file.seek(start)
            # With a start in the middle, the first line is cut off too.
            records = [json.loads(line) for line in file.read().split(b"\n")[bool(start) : -1]]
        return [record for record in records if record["step"] >= 0]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} has a line that is not a metrics record; repair or remove it") from error
