"""The classes of a model, named in the order of its outputs by a file or on the command line."""

import json
import os
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.labels.imagenet import told_apart


def parse_names(text: str | os.PathLike) -> tuple[str, ...]:
    """Return the names in a file, as `read_names` does, or where there is none of this name, those between commas.

    Raises:
        InputError: as for `read_names`; or a name between commas is missing or there twice.
    """
    if not isinstance(text, str) or os.path.isfile(os.path.expanduser(text)):
        return read_names(text)
    if "," not in text and (os.sep in text or text.lower().endswith((".txt", ".json"))):
        # Meant as a file, which is missing.
        return read_names(text)
    names = tuple(name.strip() for name in text.split(","))
    for number, name in enumerate(names):
        if not name:
            raise InputError(f"labels {text!r}: name {number + 1} is empty; every class needs a name")
        if name in names[:number]:
            raise InputError(f"labels {text!r}: {name!r} is there twice; classes need unique names")
    return names


def read_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Return the names in a file, in order, without two alike.

    A file that ends in .json holds a list, {"0": name, ...}, or either under "id2label" (Transformers' `config.json`)
    or "label_names" (a run's `run.json`). Any other is UTF-8 text with one name a line, which may end in blank lines.

    Raises:
        InputError: it can't be read, is neither, is empty, or a name is missing or occurs twice.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text("utf-8-sig")
        entries = _from_json(json.loads(text)) if path.suffix.lower() == ".json" else _from_text(text)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; give one name a line, or JSON that ends in .json") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: {error}; give a list of names, {{"0": name, ...}} or a run\'s run.json') from error
    if not entries:
        raise InputError(f"{path}: is empty; give one name a line, in the order of the model's outputs")
    for place, name in entries.items():
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise InputError(f"{path}: {place} is {name!r}; every class needs a name")
    names, first = told_apart(tuple(entries.values())), {}
    for place, name in zip(entries, names, strict=True):
        if name in first:
            raise InputError(f"{path}: {name!r} is there twice, {first[name]} and {place}; classes need unique names")
        first[name] = place
    return names


def _from_text(text: str) -> dict[str, str]:
    # Not splitlines, which also breaks lines at characters that may stand in a name.
    lines = text.rstrip().split("\n") if text.strip() else []
    return {f"line {number}": line.strip() for number, line in enumerate(lines, 1)}


def _from_json(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        value = next((value[key] for key in ("id2label", "label_names") if key in value), value)
    if isinstance(value, list):
        return {f"entry {number}": name for number, name in enumerate(value, 1)}
    if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
        raise ValueError("has neither a list of names nor names by number")
    numbered = {int(key): name for key, name in value.items()}
    if hole := [number for number in range(len(value)) if number not in numbered]:
        raise ValueError(
            f"the numbers of its {len(value):,} names are not 0 to {len(value) - 1:,}: {hole[0]} is missing"
        )
    return {f"number {number}": numbered[number] for number in sorted(numbered)}
