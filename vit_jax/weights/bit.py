"""The `.npz` files of BiT's ResNets."""

import pathlib

import numpy as np

from vit_jax.config import Model
from vit_jax.weights import files
from vit_jax.weights.rules import Rule, reshaped, same
from vit_jax.weights.supported import count

SUPPORTED_BIT = {"resnet_style": ("google",)}


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    return "resnet/root_block/standardized_conv2d/kernel" in arrays


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know; the pictures' size means nothing to these models."""
    blocks = count(arrays, r"resnet/block(\d+)/")
    channels, width = arrays["resnet/root_block/standardized_conv2d/kernel"].shape[2:]
    stages = tuple(count(arrays, rf"resnet/block{i + 1}/unit(\d+)/") for i in range(blocks))
    config = Model(name="BiT-custom", resnet=stages, resnet_width=width)
    head = arrays.get("resnet/head/conv2d/kernel")
    num_classes = None if head is None else head.shape[3]
    return {"config": config, "num_classes": num_classes, "image_size": (224, 224), "channels": channels}


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config."""
    table = [
        same("resnet/root/kernel", "resnet/root_block/standardized_conv2d/kernel"),
        *_norm("norm", "resnet"),
        reshaped("head/kernel", "resnet/head/conv2d/kernel", axes=2),
        same("head/bias", "resnet/head/conv2d/bias"),
    ]
    for i in range(1, len(config.resnet) + 1):
        for ours, theirs in (("first", "unit01"), ("rest", "unit{i:02d}")):
            unit, their_unit = f"resnet/block{i}/{ours}", f"resnet/block{i}/{theirs}"
            layers = [("conv1", "a"), ("conv2", "b"), ("conv3", "c"), ("conv_proj", "a/proj")]
            for layer, letter in layers:
                kernel = f"{their_unit}/{letter}/standardized_conv2d/kernel"
                table.append(same(f"{unit}/{layer}/kernel", kernel, first=2))
            for number, letter in enumerate("abc", start=1):
                table += _norm(f"{unit}/norm{number}", f"{their_unit}/{letter}")
    return table


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write the file."""
    files.write_npz(path, arrays)


def _norm(ours: str, theirs: str) -> list[Rule]:
    pairs = (("scale", "gamma"), ("bias", "beta"))
    return [same(f"{ours}/{a}", f"{theirs}/group_norm/{b}", first=2) for a, b in pairs]
