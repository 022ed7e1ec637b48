"""Pre-training without labels: what is hidden of a picture, and what is predicted."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Count, Range
from vit_jax.errors import InputError

# The tasks that need no labels, and the share of the patches that each hides; next_patch hides what comes later.
PRETRAINING = {"masked_patches": 0.5, "mae": 0.75, "next_patch": None}
# What each reads of its section.
KEYS = {"masked_patches": ("mask", "target"), "mae": ("mask", "decoder_width", "decoder_depth", "decoder_heads")}


@dataclass(frozen=True)
class Pretrain(Section):
    """What the tasks "masked_patches", "mae" and "next_patch" hide, and what they put on the encoder.

    Attributes:
        mask: share of the patches that masked_patches corrupts or mae hides, in (0, 1); None: as in the papers, 0.5
            and 0.75.
        target: what masked_patches predicts of a patch: its mean colour of 3 bits a channel ("color"), 4 x 4 such
            colours ("colors"), or its pixels ("pixels"); Dosovitskiy et al. (2021), appendix B.1.2.
        decoder_width, decoder_depth, decoder_heads: of mae's decoder; the defaults are those of He et al. (2022).
    """

    where: ClassVar[str] = "config.pretrain"

    mask: Annotated[float, Range("(0, 1)")] | None = None
    target: Literal["color", "colors", "pixels"] = "color"
    decoder_width: Count = 512
    decoder_depth: Count = 8
    decoder_heads: Count = 16

    def check(self, task: str) -> None:
        """Raise an `InputError` if a key is set that a task does not read."""
        for key, value in vars(self).items():
            if value != getattr(Pretrain, key) and key not in KEYS.get(task, ()):
                raise InputError(f"config.pretrain.{key}={value!r} means nothing for task {task!r}; leave it out")
