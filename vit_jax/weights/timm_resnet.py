"""timm's ResNets of weight-standardised convolutions: the backbones of its hybrids, and its BiTs (`resnetv2_*_bit`).

Kernels are stored as they are trained, not standardised, so they are the originals'. timm's own epsilons and padding,
by which its outputs differ from the originals', are `Model.resnet_style`.
"""

import numpy as np

from vit_jax.config import Model
from vit_jax.weights.rules import Rule, Shape, convolution, norm, same
from vit_jax.weights.supported import count

SUPPORTED = {"resnet_style": ("timm",)}
HYBRID = "patch_embed.backbone."


def is_bit(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are those of a BiT."""
    return "stem.conv.weight" in arrays and "stages.0.blocks.0.norm1.weight" in arrays


def stages_of(arrays: dict[str, np.ndarray], prefix: str = "") -> dict:
    """Return the fields of `Model` that say which ResNet it is, and `channels` of the pictures."""
    root = f"{prefix}stem.conv.weight" if f"{prefix}stem.conv.weight" in arrays else f"{prefix}conv.weight"
    width, channels, _, _ = arrays[root].shape
    dots = prefix.replace(".", r"\.") + r"stages\."
    stages = tuple(count(arrays, rf"{dots}{i}\.blocks\.(\d+)\.") for i in range(count(arrays, rf"{dots}(\d+)\.")))
    return {"resnet": stages, "resnet_width": width, "resnet_style": "timm", "channels": channels}


def bit_facts(arrays: dict[str, np.ndarray]) -> dict:
    """Return `facts` of a BiT, which runs on pictures of any size."""
    found = stages_of(arrays)
    channels = found.pop("channels")
    head = arrays.get("head.fc.weight")
    num_classes = None if head is None else head.shape[0]
    config = Model(name="BiT-custom", **found)
    return {"config": config, "num_classes": num_classes, "image_size": (224, 224), "channels": channels}


def bit_rules(config: Model) -> list[Rule]:
    """Return the table of a BiT, whose head is a 1x1 convolution."""

    def unpack(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        return [array.reshape(array.shape[:2]).T]

    return [
        *convolution("resnet/root", "stem.conv"),
        *_stages(config, "resnet/", ""),
        *norm("norm", "norm"),
        Rule(("head/kernel",), "head.fc.weight", lambda a: a.T[:, :, None, None], unpack),
        same("head/bias", "head.fc.bias"),
    ]


def hybrid_rules(config: Model) -> list[Rule]:
    """Return the rules of a hybrid's ResNet: of a root alone, or with stages after it."""
    root, ours = HYBRID + ("stem." if config.resnet else ""), "embedding/resnet/"
    return [
        *convolution(f"{ours}root", f"{root}conv"),
        *norm(f"{ours}root_norm", f"{root}norm"),
        *_stages(config, ours, HYBRID),
    ]


def _stages(config: Model, ours: str, theirs: str) -> list[Rule]:
    layers = {f"{kind}{i}": f"{kind}{i}" for kind in ("conv", "norm") for i in (1, 2, 3)}
    layers |= {"conv_proj": "downsample.conv", "norm_proj": "downsample.norm"}
    table = []
    for stage in range(len(config.resnet)):
        for unit, block in (("first", "0"), ("rest", "{i}")):
            for layer, name in layers.items():
                kind = convolution if layer.startswith("conv") else norm
                unit_name, block_name = f"{ours}block{stage + 1}/{unit}", f"{theirs}stages.{stage}.blocks.{block}"
                table += kind(f"{unit_name}/{layer}", f"{block_name}.{name}", first=1)
    return table
