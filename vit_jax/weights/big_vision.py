"""The `.npz` files of big_vision: with or without `params/` before the names, and stacked blocks (`scan`) too."""

import dataclasses
import pathlib

import numpy as np

from vit_jax.config import Model
from vit_jax.weights import google
from vit_jax.weights.rules import Rule, positions, reshaped, same
from vit_jax.weights.supported import ANY, PLAIN

SUPPORTED = PLAIN | {
    "pool": ("token", "gap", "map"),
    "representation": ANY,
    "position": ("learned", "sincos2d"),
    "prefix": (None, "zero"),
}
NAMES = google.PLAIN_NAMES._replace(position="pos_embedding")
STACKED = NAMES._replace(block="Transformer/encoderblock")
MAP = "MAPHead_0"


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    return any(name.startswith(("Transformer/encoderblock_0/", "Transformer/encoderblock/")) for name in arrays)


def names_in(arrays: dict[str, np.ndarray]) -> google.Names:
    """Return the names that a file uses."""
    return STACKED if "Transformer/encoderblock/LayerNorm_0/scale" in arrays else NAMES


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know; a file without positions has sine-cosine ones."""
    found = google.read_facts(arrays, names_in(arrays), grid)
    changes = {}
    if f"{MAP}/probe" in arrays:
        changes["pool"] = "map"
    if found["config"].position == "none":
        changes["position"] = "sincos2d"
    elif found["config"].pool == "token":
        changes["prefix_position"] = False
    return found | {"config": dataclasses.replace(found["config"], **changes)}


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config, in the names of a file or unstacked."""
    names = NAMES if arrays is None else names_in(arrays)
    pool = [reshaped("pool/probe", f"{MAP}/probe")]
    pool += [same(f"pool/norm/{part}", f"{MAP}/LayerNorm_0/{part}") for part in ("scale", "bias")]
    pool += [same(f"pool/{ours}", f"{MAP}/{theirs}") for ours, theirs in google.attention_and_mlp(NAMES)]
    return [*google.stem(), positions(names.position), *google.encoder(names), *pool, *google.head()]


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write the file, with `params/` before the names."""
    google.write(path, {f"params/{name}": array for name, array in arrays.items()}, model)
