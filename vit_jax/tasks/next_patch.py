"""Prediction of the next patch, row by row (El-Nouby et al., 2024, AIM)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from vit_jax.config import Config
from vit_jax.errors import InputError
from vit_jax.models.position import num_prefix
from vit_jax.tasks.pretraining import Images, Pixels, Pretraining, compare_pixels, patchify
from vit_jax.tasks.task import Outputs


class NextPatch(Pretraining):
    """Each patch after a prefix predicts the pixels of the next one, normalised, from those before it.

    The length of the prefix is drawn for each picture; its patches attend to each other, later ones to all before
    them, so that the encoder can attend to all when it is used (section 3.3).
    """

    def __init__(self, config: Config, num_classes: int):
        super().__init__(config, num_classes)
        if num_prefix(self._model) or self._model.attention_pattern != "full":
            raise InputError(
                "config.task='next_patch': class token and registers would tell of later patches; set "
                "model.pool='gap', model.registers=0 and model.attention_pattern='full'"
            )

    def look(
        self, model: Any, images: Images, key: Key[Array, ""], noise: Key[Array, ""] | None
    ) -> tuple[Outputs, Bool[Array, "batch patches"], Pixels]:
        pixels = patchify(images, model.config.patch)
        batch, patches, _ = pixels.shape
        length, place = jax.random.randint(key, (batch, 1), 1, patches), jnp.arange(patches)
        seen = (place[:, None] >= place) | (place < length[:, :, None])
        outputs = model.pretraining(model.encode(images, key=noise, seen=seen))
        # What patch i says is compared with patch i + 1; the last one says nothing.
        outputs = jnp.roll(outputs, 1, axis=1)
        return compare_pixels(outputs, pixels, place >= length)
