"""Masked patch prediction, as the paper tried it (Dosovitskiy et al., 2021, section 4.6 and appendix B.1.2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from vit_jax.config import Config, Model
from vit_jax.errors import InputError
from vit_jax.models.position import num_prefix
from vit_jax.models.pretraining import LEVELS, SIDE
from vit_jax.tasks.pretraining import Images, Pixels, Pretraining, mean_over, patchify
from vit_jax.tasks.task import Outputs

# Of the hidden patches, the share that the token stands for, and that another patch of the picture stands for; the rest
# is left as it is.
REPLACED, SWAPPED = 0.8, 0.1


class MaskedPatches(Pretraining):
    """Half of the patches are corrupted, and their colours, or pixels, are predicted."""

    def __init__(self, config: Config, num_classes: int):
        super().__init__(config, num_classes)
        self._target = config.pretrain.target
        self.reported = () if self._target == "pixels" else ("accuracy",)
        if self._target == "colors" and self._model.patch % SIDE:
            raise InputError(f"config.pretrain.target='colors': {SIDE} does not divide the patch {self._model.patch}")

    def look(
        self, model: Any, images: Images, key: Key[Array, ""], noise: Key[Array, ""] | None
    ) -> tuple[Outputs, Bool[Array, "batch patches"], Pixels]:
        pixels, parts = patchify(images, model.config.patch), model.pretraining
        batch, patches, _ = pixels.shape
        order_key, swap_key = jax.random.split(key)
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(order_key, (batch, patches)), axis=1), axis=1)
        number = self.hidden(patches)
        replaced, swapped = round(REPLACED * number), round((REPLACED + SWAPPED) * number)
        other = jax.random.randint(swap_key, (batch, patches), 0, patches)

        def corrupt(embedded: Float[Array, "batch patches dim"]) -> Float[Array, "batch patches dim"]:
            elsewhere = jnp.take_along_axis(embedded, other[:, :, None], axis=1)
            token = parts.token[...].astype(embedded.dtype)
            where = rank[:, :, None]
            return jnp.where(where < replaced, token, jnp.where(where < swapped, elsewhere, embedded))

        tokens = model.encode(images, key=noise, change=corrupt)[:, num_prefix(model.config) :]
        outputs, hidden = parts.head(tokens), rank < number
        if self._target == "pixels":
            loss = jnp.square(outputs - pixels).mean(-1)
            return mean_over(loss, hidden)[:, None], hidden, outputs
        classes = colours_of(pixels, model.config, model.channels, SIDE if self._target == "colors" else 1)
        logits = outputs.reshape(*classes.shape, -1)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean(-1)
        right = (logits.argmax(-1) == classes).mean(-1)
        shown = pixels_of(logits.argmax(-1), model.config, model.channels)
        return jnp.stack([mean_over(loss, hidden), mean_over(right, hidden)], axis=1), hidden, shown


def colours_of(pixels: Pixels, config: Model, channels: int, side: int) -> Int[Array, "batch patches squares"]:
    """Return the class of the mean colour of each of side x side squares of a patch, 3 bits a channel."""
    inner = config.patch // side
    mean, std = (jnp.asarray(values) for values in (config.mean, config.std))
    squares = pixels.reshape(*pixels.shape[:2], side, inner, side, inner, channels).mean(axis=(3, 5))
    # In [0, 1]; white itself belongs to the last level.
    levels = jnp.clip(jnp.floor((squares * std + mean) * LEVELS), 0, LEVELS - 1).astype(jnp.int32)
    return (levels * LEVELS ** np.arange(channels)).sum(-1).reshape(*pixels.shape[:2], side**2)


def pixels_of(classes: Int[Array, "batch patches squares"], config: Model, channels: int) -> Pixels:
    """Return patches of the middle colours of classes, as `colours_of` numbers them, normalised."""
    mean, std = (jnp.asarray(values) for values in (config.mean, config.std))
    levels = classes[..., None] // LEVELS ** np.arange(channels) % LEVELS
    colours = ((levels + 0.5) / LEVELS - mean) / std
    side = round(classes.shape[-1] ** 0.5)
    small = colours.reshape(*classes.shape[:2], side, side, channels)
    large = jnp.repeat(jnp.repeat(small, config.patch // side, axis=2), config.patch // side, axis=3)
    return large.reshape(*classes.shape[:2], -1)
