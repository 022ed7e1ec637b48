"""How a picture becomes a model's input; it belongs to the weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.data import Data, Share
from vit_jax.config.model import Model
from vit_jax.config.ranges import Fraction, Positive


@dataclass(frozen=True)
class Preprocessing(Section):
    """How pictures are fitted to the size of a model, and how their pixels become floats.

    Attributes:
        resize, filter, crop_fraction: as in `Data`.
        mean, std: as in `Model`.
    """

    where: ClassVar[str] = "preprocessing"

    resize: Literal["crop", "pad", "stretch", "native"] = "crop"
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    crop_fraction: Share = 0.875
    mean: tuple[Fraction, ...] = (0.5,)
    std: tuple[Positive, ...] = (0.5,)

    @classmethod
    def of(cls, data: Data, model: Model) -> "Preprocessing":
        """Return that of a config's sections."""
        return cls(data.resize, data.filter, data.crop_fraction, model.mean, model.std)

    def described(self, image_size: tuple[int, int]) -> dict[str, Any]:
        """Return all of it in JSON's types, for people and for other programs."""
        values = {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }
        return {"image_size": list(image_size), **values}
