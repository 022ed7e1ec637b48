"""The `.npz` files of the original ViT and AugReg, with or without a ResNet before the encoder.

Both sets of names are read: `LayerNorm_2`, `MlpBlock_3`, `MultiHeadDotProductAttention_1`, as published and as written
here, and the plain ones that count each kind from 0 or 1.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.weights import files
from vit_jax.weights.rules import Rule, positions, reshaped, same
from vit_jax.weights.supported import ANY, PLAIN, count, grid_of

SUPPORTED = PLAIN | {
    "resnet": ANY,
    "resnet_style": ("google", None),
    "representation": ANY,
    "position": ("learned", "none"),
}


class Names(NamedTuple):
    """What differs between the code bases that name arrays in this way."""

    block: str = "Transformer/encoderblock_{i}"
    norm2: str = "LayerNorm_2"
    mlp: str = "MlpBlock_3"
    attention: str = "MultiHeadDotProductAttention_1"
    position: str = "Transformer/posembed_input/pos_embedding"


PUBLISHED = Names()
PLAIN_NAMES = Names(norm2="LayerNorm_1", mlp="MlpBlock_0", attention="MultiHeadDotProductAttention_0")


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    blocks = any(name.startswith("Transformer/encoderblock_0/") for name in arrays)
    return blocks and (PUBLISHED.position in arrays or "Transformer/encoderblock_0/LayerNorm_2/scale" in arrays)


def names_in(arrays: dict[str, np.ndarray]) -> Names:
    """Return the names that a file uses."""
    return PUBLISHED if "Transformer/encoderblock_0/LayerNorm_2/scale" in arrays else PLAIN_NAMES


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know, read off the arrays."""
    return read_facts(arrays, names_in(arrays), grid)


def read_facts(arrays: dict[str, np.ndarray], names: Names, grid: tuple[int, int] | None) -> dict:
    """Return `facts` of a file with these names; a class token means that the head reads it."""
    stacked = "{i}" not in names.block
    block = names.block.format(i=0)
    _, num_heads, _ = arrays[f"{block}/{names.attention}/query/kernel"].shape[-3:]
    depth = len(arrays[f"{block}/LayerNorm_0/scale"]) if stacked else count(arrays, r"Transformer/encoderblock_(\d+)/")
    patch, _, channels, width = arrays["embedding/kernel"].shape
    stages = None
    if "conv_root/kernel" in arrays:
        blocks = count(arrays, r"block(\d+)/")
        stages = tuple(count(arrays, rf"block{i + 1}/unit(\d+)/") for i in range(blocks))
        patch *= 4 * 2 ** max(blocks - 1, 0)
        channels = arrays["conv_root/kernel"].shape[2]
    token = "cls" in arrays
    position, image_size = "none", (224, 224)
    if names.position in arrays:
        patches = arrays[names.position].shape[1] - (1 if token and names.position == PUBLISHED.position else 0)
        position, image_size = "learned", tuple(patch * side for side in grid_of(patches, grid))
    config = Model(
        name=f"custom/{patch}",
        width=width,
        depth=depth,
        num_heads=num_heads,
        mlp_dim=arrays[f"{block}/{names.mlp}/Dense_0/kernel"].shape[-1],
        resnet=stages,
        resnet_width=None if stages is None else arrays["conv_root/kernel"].shape[3],
        pool="token" if token else "gap",
        representation=arrays["pre_logits/kernel"].shape[1] if "pre_logits/kernel" in arrays else None,
        position=position,
    )
    num_classes = arrays["head/kernel"].shape[1] if "head/kernel" in arrays else None
    return {"config": config, "num_classes": num_classes, "image_size": image_size, "channels": channels}


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config, in the names of a file or as published."""
    names = PUBLISHED if arrays is None else names_in(arrays)
    return [*stem(), positions(names.position), *encoder(names), *head(), *_resnet(config)]


def stem() -> list[Rule]:
    """Return the rules of patches and class token."""
    return [*[same(name, name) for name in ("embedding/kernel", "embedding/bias")], reshaped("cls", "cls")]


def head() -> list[Rule]:
    """Return the rules of what comes after the encoder."""
    names = [f"{layer}/{part}" for layer in ("pre_logits", "head") for part in ("kernel", "bias")]
    return [same(name, name) for name in names]


def encoder(names: Names) -> list[Rule]:
    """Return the rules of the blocks and the norm after them."""
    block = [
        *[(f"norm1/{part}", f"LayerNorm_0/{part}") for part in ("scale", "bias")],
        *[(f"norm2/{part}", f"{names.norm2}/{part}") for part in ("scale", "bias")],
        *attention_and_mlp(names),
    ]
    return [
        *[same(f"blocks/{ours}", f"{names.block}/{theirs}") for ours, theirs in block],
        *[same(f"norm/{part}", f"Transformer/encoder_norm/{part}") for part in ("scale", "bias")],
    ]


def attention_and_mlp(names: Names) -> list[tuple[str, str]]:
    """Return pairs of our and their names, relative to a block or a pooling head."""
    ours = [f"attn/{layer}" for layer in ("query", "key", "value", "out")] + ["mlp/fc1", "mlp/fc2"]
    theirs = [f"{names.attention}/{layer}" for layer in ("query", "key", "value", "out")]
    theirs += [f"{names.mlp}/Dense_{i}" for i in range(2)]
    return [(f"{a}/{part}", f"{b}/{part}") for a, b in zip(ours, theirs, strict=True) for part in ("kernel", "bias")]


def _resnet(config: Model) -> list[Rule]:
    pairs = [("root/kernel", "conv_root/kernel")] + [(f"root_norm/{p}", f"gn_root/{p}") for p in ("scale", "bias")]
    rules = [same(f"embedding/resnet/{ours}", theirs) for ours, theirs in pairs]
    unit = [(f"{conv}/kernel", f"{conv}/kernel") for conv in ("conv1", "conv2", "conv3", "conv_proj")]
    unit += [(f"norm{x}/{p}", f"gn{x}/{p}") for x in ("1", "2", "3", "_proj") for p in ("scale", "bias")]
    for i in range(1, len(config.resnet or ()) + 1):
        stage = f"embedding/resnet/block{i}"
        rules += [same(f"{stage}/first/{ours}", f"block{i}/unit1/{theirs}") for ours, theirs in unit]
        rules += [same(f"{stage}/rest/{ours}", f"block{i}/unit{{i}}/{theirs}", first=2) for ours, theirs in unit]
    return rules


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write the file.

    Raises:
        InputError: the positions are no square grid, which readers of this format take for granted.
    """
    rows, columns = model.grid(model.image_size)
    if rows != columns and model.config.position != "none":
        raise InputError(f"{path}: this format can't hold a position grid of {rows}x{columns}, only square ones")
    files.write_npz(path, arrays)
