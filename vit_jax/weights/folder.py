"""A weight file, or the folder of a model: its arrays, in one file or in several, and what JSON files say of it."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import safetensors

from vit_jax.errors import InputError
from vit_jax.weights import files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@contextlib.contextmanager
def open_folder(path: pathlib.Path, skip: str) -> Iterator[tuple[dict[str, files.Stored], dict[str, Any]]]:
    """Yield arrays, without `params/` before their names, and what else is noted of the model.

    Args:
        path: a file, or a folder of `model.safetensors` or of the files that `model.safetensors.index.json` names.
        skip: as for `files.open_arrays`.

    Raises:
        InputError: a file is missing or damaged, or none of the arrays is of a model of pictures.
    """
    parts = parts_of(path)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(files.open_arrays(part, skip)) for part in parts]
        arrays = {name: array for part in opened for name, array in part.items()}
        if not arrays:
            raise InputError(f"{path}: holds no arrays of a model of pictures")
        if any(name.startswith("params/") for name in arrays):
            arrays = {name.removeprefix("params/"): x for name, x in arrays.items() if name.startswith("params/")}
        notes: dict[str, Any] = {}
        if parts[0].suffix == ".safetensors":
            with safetensors.safe_open(parts[0], "np") as first:
                notes |= first.metadata() or {}
        if path.is_dir() or path.name == WEIGHTS:
            notes |= read_json(parts[0].with_name("config.json")) or {}
            notes["preprocessor_config.json"] = read_json(parts[0].with_name("preprocessor_config.json"))
        yield arrays, notes


def parts_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that hold the arrays."""
    if not path.is_dir():
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    index = read_json(path / INDEX)
    if index is None:
        raise InputError(f"{path}: a directory without {WEIGHTS} (nor run.json)")
    places = index.get("weight_map")
    named = isinstance(places, dict) and all(isinstance(each, str) for each in places.values())
    if not named or any(each != pathlib.Path(each).name for each in places.values()):
        raise InputError(f"{path / INDEX}: its weight_map must name, for each array, a file in the same folder")
    parts = [path / name for name in sorted(set(places.values()))]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise InputError(f"{path}: lacks {', '.join(missing)}, which {INDEX} names; download the folder again")
    if not parts:
        raise InputError(f"{path / INDEX}: its weight_map names no files")
    return parts


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None without one; raise an `InputError` if it holds another thing."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON object ({' '.join(str(error).split())})") from error
