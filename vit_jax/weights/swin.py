"""Swins in the files of timm and of Transformers: the same arrays under other names."""

import math
import re
from typing import NamedTuple

import numpy as np

from vit_jax.config import Model
from vit_jax.weights.rules import Rule, Shape, convolution, linear, norm
from vit_jax.weights.supported import ANY, count

# All of timm's have these; a Transformers config says which.
SUPPORTED_TIMM = {"gelu": ("exact",), "norm_eps": (1e-5,)}
SUPPORTED_HUGGINGFACE = {"gelu": ANY, "norm_eps": ANY}
TABLE = "relative_position_bias_table"
# What older versions saved, and what follows from the rest.
BUFFERS = r".*\.(relative_position_index|attn_mask)"


class Names(NamedTuple):
    """What a code base calls the parts.

    Attributes:
        embedding: of the projection of patches; `embedding_norm` is that of the norm after it.
        stage: of a stage, by its number, and `merging` of what comes before it, by the same number.
        query: of query, key and value, one or three; the others are the layers of a block, and the last ones.
    """

    embedding: str
    embedding_norm: str
    stage: str
    merging: str
    query: tuple[str, ...]
    table: str
    out: str
    norms: tuple[str, str]
    fc1: str
    fc2: str
    norm: str
    head: str


TIMM = Names(
    embedding="patch_embed.proj",
    embedding_norm="patch_embed.norm",
    stage="layers.{}",
    merging="layers.{}.downsample",
    query=("attn.qkv",),
    table=f"attn.{TABLE}",
    out="attn.proj",
    norms=("norm1", "norm2"),
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    norm="norm",
    head="head.fc",
)


def huggingface(arrays: dict[str, np.ndarray] | None = None) -> Names:
    """Return Transformers' names; those of a model without a head have no prefix."""
    prefix = "swin." if arrays is None or any(name.startswith("swin.") for name in arrays) else ""
    return Names(
        embedding=f"{prefix}embeddings.patch_embeddings.projection",
        embedding_norm=f"{prefix}embeddings.norm",
        stage=prefix + "encoder.layers.{}",
        merging=prefix + "encoder.layers.{}.downsample",
        query=tuple(f"attention.self.{part}" for part in ("query", "key", "value")),
        table=f"attention.self.{TABLE}",
        out="attention.output.dense",
        norms=("layernorm_before", "layernorm_after"),
        fc1="intermediate.dense",
        fc2="output.dense",
        norm=f"{prefix}layernorm",
        head="classifier",
    )


def has_swin(arrays: dict[str, np.ndarray], names: Names) -> bool:
    """Return whether a file has a Swin under such names."""
    return f"{names.stage.format(0)}.blocks.0.{names.table}" in arrays


def facts(arrays: dict[str, np.ndarray], names: Names, window: int | None) -> dict:
    """Return what `build_model` needs to know, as far as the arrays say it.

    The picture is the one that the windows of the last stage are just right for: smaller maps have smaller windows.

    Args:
        window: their side, where it is known; else it is that of the first stage.
    """
    for name in [name for name in arrays if re.fullmatch(BUFFERS, name)]:
        del arrays[name]
    width, channels, patch, _ = arrays[f"{names.embedding}.weight"].shape
    stage = re.escape(names.stage).replace(r"\{\}", "{}")
    stages = count(arrays, stage.format(r"(\d+)") + r"\.")
    first, last = (f"{names.stage.format(i)}.blocks.0" for i in (0, stages - 1))
    sides = [(math.isqrt(len(arrays[f"{block}.{names.table}"])) + 1) // 2 for block in (first, last)]
    config = Model(
        name="Swin-custom",
        patch=patch,
        width=width,
        num_heads=arrays[f"{first}.{names.table}"].shape[1],
        mlp_dim=len(arrays[f"{first}.{names.fc1}.weight"]),
        swin=tuple(count(arrays, stage.format(i) + r"\.blocks\.(\d+)\.") for i in range(stages)),
        window=window or sides[0],
        gelu="exact",
        norm_eps=1e-5,
    )
    head = arrays.get(f"{names.head}.weight")
    return {
        "config": config,
        "num_classes": None if head is None else len(head),
        "image_size": (patch * 2 ** (stages - 1) * sides[1],) * 2,
        "channels": channels,
    }


def rules(config: Model, names: Names) -> list[Rule]:
    """Return the table of a resolved config."""
    # Transformers' stages end with what begins the next one here, and the first of timm's has none.
    before = 0 if names is TIMM else 1
    table = [*convolution("embedding", names.embedding), *norm("embedding_norm", names.embedding_norm)]
    for stage in range(len(config.swin)):
        ours, theirs = f"stage{stage + 1}/blocks", names.stage.format(stage) + ".blocks.{i}"
        merging = names.merging.format(stage - before)
        table += [
            *norm(f"stage{stage + 1}/merging/norm", f"{merging}.norm"),
            *linear(f"stage{stage + 1}/merging/reduction", f"{merging}.reduction"),
            *norm(f"{ours}/norm1", f"{theirs}.{names.norms[0]}"),
            *_projections(f"{ours}/attn", theirs, names.query),
            Rule((f"{ours}/window_bias",), f"{theirs}.{names.table}", lambda a: a.reshape(-1, a.shape[-1]), _unfolded),
            *linear(f"{ours}/attn/out", f"{theirs}.{names.out}"),
            *norm(f"{ours}/norm2", f"{theirs}.{names.norms[1]}"),
            *linear(f"{ours}/mlp/fc1", f"{theirs}.{names.fc1}"),
            *linear(f"{ours}/mlp/fc2", f"{theirs}.{names.fc2}"),
        ]
    return [*table, *norm("norm", names.norm), *linear("head", names.head)]


def _projections(ours: str, theirs: str, names: tuple[str, ...]) -> list[Rule]:
    parts = tuple(f"{ours}/{part}" for part in ("query", "key", "value"))
    if len(names) == 1:
        return linear(parts, f"{theirs}.{names[0]}", outputs=2)
    return [
        rule for part, name in zip(parts, names, strict=True) for rule in linear(part, f"{theirs}.{name}", outputs=2)
    ]


def _unfolded(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
    return [array.reshape(shapes[0])]
