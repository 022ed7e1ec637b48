"""Starting from pretrained weights: what of an experiment follows from them, and where their arrays go."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from vit_jax import tree
from vit_jax.config import Config, Model
from vit_jax.errors import InputError
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.directory import read_facts
from vit_jax.weights import SIZE_KEYS, configured, load
from vit_jax.weights.fetch import fetch

# What says how a model is trained and run: the config's always. The rest of an architecture is that of the weights,
# unless the config sets it to something else than its default.
OWN = ("resample", "dropout", "drop_path", "drop_path_subset", "head_bias", "dtype", "attention", "remat", "unroll")


class Weights(NamedTuple):
    """Parameters to start from, in the host's memory.

    Attributes:
        told: one line on which are taken, resized and new, and what the model has from them that the config didn't say.
    """

    params: Any
    told: str


def start_from(config: Config, label_names: tuple[str, ...], workdir: Path) -> tuple[Config, Weights | None]:
    """Return the config with the architecture of the weights of `config.init`, and the weights.

    A run that has a checkpoint says itself what it started from: the weights are not opened again, and None.

    Raises:
        InputError: the weights can't be read, or are not of the model that the config names.
    """
    if config.init is None:
        return config, None
    if not config.init:
        raise InputError("config.init is empty: say which weights to start from, --config.init=PATH, or none")
    if Checkpoints(workdir).latest() is not None:
        model = configured(read_facts(workdir).config.model, _said(config.model), str(workdir))
        return dataclasses.replace(config, model=model), None
    try:
        model, told = _load(config, label_names)
    except InputError as error:
        raise InputError(f"config.init: {error}") from error
    if theirs := _theirs(config.model, model.config):
        told += f"; the model has their {theirs}"
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.split(model)[1]))
    return dataclasses.replace(config, model=model.config), Weights(params, told)


def place_params(params: Any, shapes: Any) -> Any:
    """Return the parameters as global arrays that lie as `shapes` says: no device holds more than its part."""

    def put(array: np.ndarray, shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda part: array[part])

    return jax.tree.map(put, params, shapes)


def _load(config: Config, label_names: tuple[str, ...]) -> tuple[nnx.Module, str]:
    path, said = fetch(config.init), _said(config.model)
    # Only a run says what its classes are called; of any other weights the head is another data set's.
    same = (path / "run.json").is_file() and read_facts(path).label_names == label_names
    if not same:
        said["representation"] = config.model.representation
    model = load(config.init, num_classes=None if same else len(label_names), host=True, **said)
    if model.channels != config.channels:
        raise InputError(f"{config.init}: takes {model.channels} channels, not config.channels={config.channels}")
    before, size = _shapes(model), config.height_width()
    model.resize(size)
    after = _shapes(model)
    resized = [name for name in before if before[name] != after[name]]
    told = [f"{len(before) - len(resized) - (0 if same else 2)} arrays taken"]
    if resized:
        told.append(f"{', '.join(resized)} resized for {size[0]}x{size[1]} pixels")
    told.append("the head too" if same else f"a new head for {len(label_names)} classes")
    return model, f"starting from {config.init}: {', '.join(told)}"


def _said(model: Model) -> dict[str, Any]:
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
    defaults = dataclasses.asdict(Model())
    return {key: value for key, value in values.items() if key in ("name", *OWN) or value != defaults[key]}


def _theirs(said: Model, model: Model) -> str:
    # The sizes are in the name, and a class token mostly follows from how the head pools.
    old, new = (dataclasses.asdict(config) for config in (said, model))
    names = [name for name in new if name not in (*SIZE_KEYS, "class_token") and old[name] != new[name]]
    return ", ".join(f"{name}={new[name]!r}" for name in names)


def _shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in tree.flatten(nnx.to_pure_dict(nnx.split(model)[1])).items()}
