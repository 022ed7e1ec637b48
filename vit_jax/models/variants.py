"""What a model's name means, such as "B/16", "R50+B/16" or "BiT-R50x1"."""

import dataclasses
import re
from typing import NamedTuple

from vit_jax.config import Config, Model
from vit_jax.errors import InputError, nearest


class Size(NamedTuple):
    width: int
    depth: int
    mlp_dim: int
    num_heads: int


# Ti to H: Dosovitskiy et al. (2021), Steiner et al. (2022); g and G: Zhai et al. (2022); mu and nano are for laptops.
SIZES = {
    "mu": Size(32, 1, 128, 2),
    "nano": Size(96, 6, 384, 3),
    "Ti": Size(192, 12, 768, 3),
    "S": Size(384, 12, 1536, 6),
    "B": Size(768, 12, 3072, 12),
    "L": Size(1024, 24, 4096, 16),
    "H": Size(1280, 32, 5120, 16),
    "g": Size(1408, 40, 6144, 16),
    "G": Size(1664, 48, 8192, 16),
}

# Compact transformers by their number of blocks (Hassani et al., 2021): "ViT-Lite-7/4" projects patches, and
# "CCT-7/3x1" has a convolutional tokenizer and pools by "seq". Neither has a bias for queries, keys and values.
COMPACT = {
    2: Size(128, 2, 128, 2),
    4: Size(128, 4, 128, 2),
    6: Size(256, 6, 512, 4),
    7: Size(256, 7, 512, 4),
    14: Size(384, 14, 1152, 6),
}
SIZES |= {f"{family}-{depth}": size for family in ("ViT-Lite", "CCT") for depth, size in COMPACT.items()}

# Units in each stage of a hybrid's ResNet, by name and patch: "R" is the root alone (Steiner et al., 2022).
HYBRIDS = {("R26", 32): (2, 2, 2, 2), ("R50", 16): (3, 4, 9), ("R50", 32): (3, 4, 6, 3)}

# Units in each stage of BiT's ResNets (Kolesnikov et al., 2020); the name's second number is the width factor.
BIT = {"R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3), "R152": (3, 8, 36, 3)}

# Width and heads of a Swin's first stage, and blocks in each stage (Liu et al., 2021).
SWIN = {
    "T": (96, 3, (2, 2, 6, 2)),
    "S": (96, 3, (2, 2, 18, 2)),
    "B": (128, 4, (2, 2, 18, 2)),
    "L": (192, 6, (2, 2, 18, 2)),
}

# The names that papers report; any other size / patch works too.
NAMES = (
    *("Ti/16", "S/32", "S/16", "B/32", "B/16", "B/8", "L/32", "L/16", "H/14", "g/14", "G/14"),
    *("ViT-Lite-7/4", "CCT-2/3x2", "CCT-7/3x1"),
    *("R+Ti/16", "R26+S/32", "R26+B/32", "R50+B/16", "R50+L/32"),
    *("BiT-R50x1", "BiT-R50x3", "BiT-R101x1", "BiT-R101x3", "BiT-R152x2", "BiT-R152x4"),
    *("Swin-T", "Swin-S", "Swin-B", "Swin-L"),
)

# What still has a meaning for a ResNet without an encoder.
_BIT_FIELDS = ("name", "resnet", "resnet_width", "resnet_style", "head_bias", "mean", "std", "dtype")
# And for a Swin, whose head reads the mean of all tokens.
_SWIN_FIELDS = (
    *("name", "patch", "width", "num_heads", "mlp_dim", "swin", "window", "resample", "gelu", "norm_eps"),
    *("dropout", "drop_path", "head_bias", "mean", "std", "dtype", "remat"),
)


def resolve(config: Model) -> Model:
    """Fill in what the name says: patch, width, depth, number of heads and MLP width, the stages of a ResNet.

    Raises:
        InputError: the name is unknown, an option does not fit it, or the number of heads does not divide the width.
    """
    return {"BiT": _resolve_bit, "Swin": _resolve_swin, "ViT": _resolve_vit}[kind_of(config.name)](config)


def kind_of(name: str) -> str:
    """Return "BiT", "Swin" or, for pure ones and hybrids, "ViT"."""
    kind = name.partition("-")[0]
    return kind if kind in ("BiT", "Swin") else "ViT"


def reduction(config: Model) -> int:
    """Return how many pixels of the picture one position of the patch embedding's input covers."""
    return 1 if config.resnet is None else 4 * 2 ** max(len(config.resnet) - 1, 0)


def conv_stride(side: int) -> int:
    """Return the stride of a tokenizer's convolutions of this side, as Hassani et al. (2021) chose it."""
    return max(1, side // 2 - 1)


def name_of(config: Model) -> str:
    """Return the name under which the sizes of a resolved config are known, or "custom/16", "BiT-custom" or such."""
    if config.patch is None:
        names = [f"BiT-{key}x{config.resnet_width // 64}" for key in BIT]
        custom = "BiT-custom"
    elif config.swin is not None:
        names, custom = [f"Swin-{size}" for size in SWIN], "Swin-custom"
    else:
        stems = [""] if config.resnet is None else ["R+", "R26+", "R50+"]
        names = [f"{stem}{size}/{config.patch // (2 if stem == 'R+' else 1)}" for stem in stems for size in SIZES]
        if config.tokenizer is not None:
            names = [f"CCT-{depth}/{config.tokenizer[0]}x{config.tokenizer[1]}" for depth in COMPACT]
        custom = f"custom/{config.patch}"
    keys = ("patch", "width", "depth", "mlp_dim", "num_heads", "resnet", "resnet_width", "tokenizer")
    keys += ("swin",)
    for name in names:
        try:
            same = resolve(Model(name=name))
        except InputError:
            continue
        # The names of compact transformers say that there is no bias; the others leave it open.
        if all(getattr(same, key) == getattr(config, key) for key in keys) and same.qkv_bias >= config.qkv_bias:
            return name
    return custom


def _resolve_vit(config: Model) -> Model:
    stem, size, patch, tokenizer = _parse_name(config)
    stages = config.resnet
    if stages is None and stem is not None:
        stages = () if stem == "R" else HYBRIDS.get((stem, patch))
        if stages is None:
            raise InputError(
                f"model {config.name!r}: {stem} has no stages for patch {patch}; set model.resnet=(units, ...), or "
                + nearest(config.name, [name for name in NAMES if "+" in name])
            )
    table = {"patch": patch, "tokenizer": tokenizer}
    table |= {"resnet": stages, "resnet_width": None if stages is None else 64}
    table |= SIZES[size]._asdict() if size in SIZES else dict.fromkeys(Size._fields)
    filled = {key: value if getattr(config, key) is None else getattr(config, key) for key, value in table.items()}
    for key in ("patch", *Size._fields):
        if filled[key] is None:
            raise InputError(f"model.{key} must be set for {config.name!r}, which has no sizes of its own")
    if filled["width"] % filled["num_heads"]:
        raise InputError(f"model.num_heads={filled['num_heads']} does not divide model.width={filled['width']}")
    pool = "seq" if size.startswith("CCT-") and config.pool == "token" else config.pool
    class_token = pool in ("token", "token_gap") if config.class_token is None else config.class_token
    qkv_bias = config.qkv_bias and not size.startswith(("ViT-Lite-", "CCT-"))
    config = dataclasses.replace(config, **filled, pool=pool, class_token=class_token, qkv_bias=qkv_bias)
    if config.tokenizer is not None:
        _check_tokenizer(config)
    if config.resnet is not None:
        _check_resnet(config)
        if config.patch % reduction(config):
            raise InputError(
                f"model {config.name!r}: patch {config.patch} is not divisible by {reduction(config)}, "
                f"the stride of a ResNet with stages {config.resnet}"
            )
    return config


def _parse_name(config: Model) -> tuple[str | None, str, int, tuple[int, int] | None]:
    """Return what the name of a ViT says: its ResNet or None, its size, the patch, the tokenizer or None."""
    match = re.fullmatch(r"(?:(R\d*)\+)?([\w-]+)/([1-9]\d*)(?:x([1-9]\d*))?", config.name)
    if not match or match[2] not in (*SIZES, "custom") or match[2].startswith("CCT-") != bool(match[4]):
        sizes = ", ".join(size for size in SIZES if not size.startswith("CCT-"))
        raise InputError(
            f"model {config.name!r} is unknown: a name is SIZE/PATCH with a size of {sizes}, or as CCT-7/3x1; "
            + nearest(config.name, NAMES)
        )
    stem, size, number = match[1], match[2], int(match[3])
    if match[4]:
        tokenizer = config.tokenizer or (number, int(match[4]))
        return stem, size, config.patch or _tokenizer_patch(tokenizer), tokenizer
    # The published R+Ti/16 cuts 8x8 patches from a map of stride 4, so that a token covers 32 pixels.
    return stem, size, config.patch or number * (2 if stem == "R" else 1), config.tokenizer


def _tokenizer_patch(tokenizer: tuple[int, int]) -> int:
    side, layers = tokenizer
    return (2 * conv_stride(side)) ** layers


def _check_tokenizer(config: Model) -> None:
    side, layers = config.tokenizer
    if side < 3 or side % 2 == 0:
        raise InputError(f"model.tokenizer={config.tokenizer}: the convolutions' side must be odd and at least 3")
    if config.resnet is not None:
        raise InputError("model.tokenizer: a hybrid has a ResNet in its place; leave one of them out")
    if config.patch != (patch := _tokenizer_patch(config.tokenizer)):
        raise InputError(f"model.patch={config.patch}: {layers} convolutions of side {side} make patches of {patch}")


def _check_resnet(config: Model) -> None:
    if config.resnet_width % 32:
        raise InputError(f"model.resnet_width={config.resnet_width}: must be a multiple of 32, for 32 groups")


def _resolve_bit(config: Model) -> Model:
    match = re.fullmatch(r"BiT-(R\d+)x([1-9]\d*)", config.name)
    if config.name != "BiT-custom" and (not match or match[1] not in BIT):
        raise InputError(f"model {config.name!r} is unknown; {nearest(config.name, NAMES)}")
    _refuse_others(config, _BIT_FIELDS, "a ResNet without an encoder")
    stages = config.resnet if config.resnet is not None else BIT[match[1]] if match else None
    width = config.resnet_width or (64 * int(match[2]) if match else None)
    if not stages or not width:
        raise InputError(f"model.resnet and model.resnet_width must be set for {config.name!r}")
    config = dataclasses.replace(config, resnet=stages, resnet_width=width)
    _check_resnet(config)
    return config


def _resolve_swin(config: Model) -> Model:
    size = config.name.removeprefix("Swin-")
    if size not in (*SWIN, "custom"):
        raise InputError(f"model {config.name!r} is unknown; {nearest(config.name, NAMES)}")
    _refuse_others(config, _SWIN_FIELDS, "a Swin")
    known = dict(zip(("width", "num_heads", "swin"), SWIN[size], strict=True)) if size in SWIN else {}
    filled = {"patch": 4, "window": 7, "width": None, "num_heads": None, "swin": None} | known
    filled |= {key: getattr(config, key) for key in filled if getattr(config, key) is not None}
    for key, value in filled.items():
        if not value:
            raise InputError(f"model.{key} must be set for {config.name!r}, which has no sizes of its own")
    if filled["width"] % filled["num_heads"]:
        raise InputError(f"model.num_heads={filled['num_heads']} does not divide model.width={filled['width']}")
    mlp_dim = config.mlp_dim or 4 * filled["width"]
    return dataclasses.replace(config, **filled, mlp_dim=mlp_dim, pool="gap", class_token=False)


def _refuse_others(config: Model, fields: tuple[str, ...], what: str) -> None:
    """Raise an `InputError` if any other field is set; those of a resolved config are as good as unset."""
    resolved = {"pool": "gap", "class_token": False} if what == "a Swin" else {}
    for field in dataclasses.fields(Model):
        value = getattr(config, field.name)
        if field.name not in fields and value not in (field.default, resolved.get(field.name, field.default)):
            raise InputError(f"model.{field.name}: means nothing for {config.name!r}, {what}")


def with_model(config: Config) -> Config:
    """Return a config whose model is resolved: what depends on the sizes of the model can be read off it."""
    return dataclasses.replace(config, model=resolve(config.model))
