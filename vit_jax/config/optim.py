"""The optimizer config."""

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
        name: all from Optax; "adafactor" as in Zhai et al. (2022); "muon" for the matrices of the encoder, of a
            ResNet and of a tokenizer after its first layer, with AdamW for the rest and updates scaled alike, so that
            one rate suits both (Liu et al., 2025).
        lr: peak learning rate, reached after `Config.warmup`.
        schedule: decay after the warm-up: to 0 along a half cosine or a line; 1/sqrt(1 + steps / timescale) ("rsqrt";
            Zhai et al., 2022); or none ("constant"). `Config.cooldown` brings the last two to 0.
        timescale: timescale of the "rsqrt" schedule, a duration.
        lr_mults: (pattern, factor) pairs for the learning rate. The first regular expression that matches the full
            name of a parameter applies; without a match the factor is 1. Factor 0 freezes: no gradient, state or decay.
        layer_decay: ratio of each layer's learning rate to the next layer's (Clark et al., 2020; Bao et al., 2022). The
            embedding is layer 0, block i is layer i + 1; the last norm and the head have the full rate.
        last_blocks: number of blocks to train, counted from the last, with the last norm and the head; what comes
            before them is frozen. 0 trains only what comes after the blocks; None: all.
        weight_decay: decoupled weight decay (Loshchilov & Hutter, 2019), multiplied by the parameter's learning rate.
        decay: (pattern, factor) pairs for the weight decay, matched like `lr_mults`; without a match the factor is 0.
        clip: global gradient norm above which gradients are scaled down; None: no clipping.
        momentum_dtype: dtype of the first moment, for every optimizer; the second moment is float32.
        b1, b2, eps: for AdamW; Lion uses b1 and b2. None for b2: 0.999, or 0.99 for Lion.
        momentum: for SGD, Adafactor and Muon; None: 0.9, or 0.95 for Muon.
    """

    where: ClassVar[str] = "config.optim"

    name: Literal["adamw", "sgd", "adafactor", "lion", "muon"] = "adamw"
    lr: Positive = 1e-3
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    timescale: Annotated[str, Duration()] = "10_000st"
    lr_mults: tuple[tuple[str, NonNegative], ...] = ()
    layer_decay: Annotated[float, Range("(0, 1]")] | None = None
    last_blocks: Annotated[int, Range("[0, inf)")] | None = None
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
                    raise InputError(f"config.optim.{name}: {pattern!r} is not a valid pattern ({error})") from error
