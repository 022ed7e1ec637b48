"""The table of sizes, and what a model name such as "B/16" means."""

import dataclasses
import re
from typing import NamedTuple

from vit_jax.config import Model
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

# The names that papers report; any other size / patch works too.
NAMES = ("Ti/16", "S/32", "S/16", "B/32", "B/16", "B/8", "L/32", "L/16", "H/14", "g/14", "G/14")


def resolve(config: Model) -> Model:
    """Fill in what the name says: patch, width, depth, number of heads and MLP width.

    Raises:
        InputError: the name is unknown, or the number of heads does not divide the width.
    """
    match = re.fullmatch(r"(\w+)/(\d+)", config.name)
    if not match or match[1] not in SIZES or int(match[2]) < 1:
        raise InputError(
            f"model {config.name!r} is unknown: a name is SIZE/PATCH with a size of {', '.join(SIZES)}; "
            + nearest(config.name, NAMES)
        )
    table = SIZES[match[1]]._asdict() | {"patch": int(match[2])}
    filled = {key: value if getattr(config, key) is None else getattr(config, key) for key, value in table.items()}
    for key, value in filled.items():
        if value < 1:
            raise InputError(f"model.{key}={value}: must be at least 1")
    if filled["width"] % filled["num_heads"]:
        raise InputError(f"model.num_heads={filled['num_heads']} does not divide model.width={filled['width']}")
    return dataclasses.replace(config, **filled)
