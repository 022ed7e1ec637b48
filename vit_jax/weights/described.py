"""What goes with weights beside their arrays: label names, preprocessing, and folders of JSON files."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from vit_jax.config import Preprocessing
from vit_jax.config.coerce import coerce
from vit_jax.errors import InputError
from vit_jax.labels import told_apart
from vit_jax.weights import files


def names_of(value: Any, num_classes: int | None, key: str) -> tuple[str, ...] | None:
    """Return label names stored as a list or as {"0": name, ...}; None where nothing is known.

    Raises:
        InputError: they are no names, or not one for each of `num_classes` outputs.
    """
    if not value or num_classes is None:
        return None
    if isinstance(value, dict):
        value = [value.get(str(i), value.get(i)) for i in range(len(value))]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key}: must name the classes 0, 1, 2, ...")
    if len(value) != num_classes:
        raise InputError(f"{key}: names {len(value):,} classes, but the head has {num_classes:,} outputs")
    return told_apart(tuple(value))


def preprocessing_fields(**values) -> dict[str, Any]:
    """Return all fields of `Preprocessing`, as a format's `facts` gives them; equal channels share one number.

    Raises:
        InputError: a value is out of range, or no value at all.
    """
    fields = dataclasses.asdict(coerce(values, Preprocessing, Preprocessing.where))
    shared = {key: fields[key][:1] for key in ("mean", "std") if len(set(fields[key])) == 1}
    return fields | shared


def preprocessing_of(model: Any) -> Preprocessing:
    """Return how pictures are prepared for a model, its normalisation that of the model's config."""
    return dataclasses.replace(model.preprocessing, mean=model.config.mean, std=model.config.std)


def per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    """Return one number for each channel."""
    return list(values) * channels if len(values) == 1 else list(values)


def write_folder(
    path: pathlib.Path, documents: dict[str, dict], arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write JSON files and `model.safetensors`; each file takes its name only when whole, the weights last.

    Raises:
        InputError: the folder can't be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't be made a folder ({error.strerror})") from error
    for name, content in documents.items():
        with files.replacing(path / name) as part:
            part.write_text(json.dumps(content, indent=2) + "\n")
    files.write_safetensors(path / "model.safetensors", arrays, metadata)
