"""The keys of an experiment's optimizer."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Duration, NonNegative, Positive, Range, Rate
from vit_jax.errors import InputError


@dataclass(frozen=True)
class Optim(Section):
    """Optimizer and learning rate.

    Attributes:
        name: all from Optax; "adafactor" as in Zhai et al. (2022); "muon" for the matrices of the encoder and of a
            ResNet, AdamW for the rest, with updates of one size (Liu et al., 2025), so that both take one rate.
        lr: the peak, reached after `Config.warmup`.
        schedule: after the warm-up: to 0 as half a cosine or a line; as 1/sqrt(1 + steps / timescale) (Zhai et al.,
            2022); or not at all. `Config.cooldown` brings the last two to 0.
        timescale: of "rsqrt", a duration.
        lr_mults: (pattern, factor) of the learning rate; the first regular expression that matches the whole name of
            a parameter decides, and none means 1. Factor 0 freezes: no gradient, no state, no decay.
        layer_decay: the learning rate of each layer over that of the next (Clark et al., 2020; Bao et al., 2022):
            the embedding is layer 0, block i layer i + 1, the last norm and the head have the full rate.
        weight_decay: decoupled (Loshchilov & Hutter, 2019), multiplied by the parameter's learning rate.
        decay: (pattern, factor) of the weight decay, read as `lr_mults`, but none means 0.
        clip: global gradient norm above which gradients are scaled down; None turns it off.
        momentum_dtype: of the first moment, whatever the optimizer; the second is float32.
        b1, b2, eps: of AdamW, and b1, b2 of Lion; b2 None: 0.999, and 0.99 for Lion.
        momentum: of SGD, Adafactor and Muon; None: 0.9, and 0.95 for Muon.
    """

    where: ClassVar[str] = "config.optim"

    name: Literal["adamw", "sgd", "adafactor", "lion", "muon"] = "adamw"
    lr: Positive = 1e-3
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    timescale: Annotated[str, Duration()] = "10_000st"
    lr_mults: tuple[tuple[str, NonNegative], ...] = ()
    layer_decay: Annotated[float, Range("(0, 1]")] | None = None
    weight_decay: NonNegative = 0.0
    decay: tuple[tuple[str, NonNegative], ...] = ((r".*/kernel", 1.0),)
    clip: Positive | None = 1.0
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    b1: Rate = 0.9
    b2: Rate | None = None
    eps: Positive = 1e-8
    momentum: Rate | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("lr_mults", "decay"):
            for pattern, _ in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise InputError(f"config.optim.{name}: {pattern!r} is no regular expression ({error})") from error
