"""Masked autoencoding (He et al., 2022): the encoder sees a quarter of the patches, and a decoder paints the others."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from vit_jax.config import Config
from vit_jax.errors import InputError
from vit_jax.tasks.pretraining import Images, Pixels, Pretraining, compare_pixels, patchify
from vit_jax.tasks.task import Outputs


class Mae(Pretraining):
    """Most patches are hidden from the encoder, and their pixels, normalised patch by patch, are predicted."""

    def __init__(self, config: Config, num_classes: int):
        super().__init__(config, num_classes)
        model = self._model
        if model.position == "relative" or model.position_at != "stem" or model.attention_pattern != "full":
            raise InputError(
                "config.task='mae': the encoder sees some of the patches, so model.position can't be 'relative', "
                "model.position_at must be 'stem', and model.attention_pattern 'full'"
            )

    def look(
        self, model: Any, images: Images, key: Key[Array, ""], noise: Key[Array, ""] | None
    ) -> tuple[Outputs, Bool[Array, "batch patches"], Pixels]:
        pixels = patchify(images, model.config.patch)
        batch, patches, _ = pixels.shape
        order = jnp.argsort(jax.random.uniform(key, (batch, patches)), axis=1)
        places, seen = jnp.argsort(order, axis=1), patches - self.hidden(patches)
        tokens = model.encode(images, key=noise, keep=order[:, :seen])
        outputs = model.pretraining(tokens, places, model.grid(images.shape[1:3]))
        return compare_pixels(outputs, pixels, places >= seen)
