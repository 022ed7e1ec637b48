"""Attention rollout: which patches a prediction draws on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.models import Backbone, BiT, ViT
from vit_jax.models.position import num_prefix


def attention_names(model: Backbone) -> list[str]:
    """Return the activations of a model that its rollout is computed from.

    Raises:
        InputError: it has no attention between all patches.
    """
    if not isinstance(model, ViT):
        why = "is a ResNet, which has no attention" if isinstance(model, BiT) else "attends within windows alone"
        raise InputError(f"--attention: {model.config.name!r} {why}; take a ViT or hybrid")
    return [f"attention/{i}" for i in range(model.config.depth)]


def rollout(
    weights: list[Float[Array, "batch heads tokens tokens"]], model: ViT, image_size: tuple[int, int]
) -> Float[Array, "batch rows columns"]:
    """Return how much of each patch arrives where the head reads, by attention alone (Abnar & Zuidema, 2020).

    A block passes on half of a token itself, by its residual branch, and half of what it attends to, the mean over
    heads. The product over the blocks is taken from the class token, or from the mean over the patches where the head
    reads no class token. What ends in class and register tokens is left out.

    Args:
        weights: of the blocks, first to last.
    """
    prefix, tokens = num_prefix(model.config), weights[0].shape[-1]
    read = jnp.arange(tokens) == 0 if model.config.pool in ("token", "token_gap") else jnp.arange(tokens) >= prefix
    share = jnp.broadcast_to(read / read.sum(), (weights[0].shape[0], tokens))
    for each in reversed(weights):
        attended = jnp.einsum("bq,bqk->bk", share, each.mean(axis=1), precision=jax.lax.Precision.HIGHEST)
        share = (share + attended) / 2
    return share[:, prefix:].reshape(-1, *model.grid(image_size))
