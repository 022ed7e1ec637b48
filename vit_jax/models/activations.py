"""What a model computes on the way to its logits: names that are checked, and the attention weights of a block."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from vit_jax.errors import InputError
from vit_jax.models.layers import Block, add_position
from vit_jax.models.rotary import Rotation


def attention_weights(
    blocks: Block,
    index: int,
    tokens: Float[Array, "batch tokens dim"],
    added: Float[Array, "tokens dim"] | None,
    bias: Float[Array, "heads tokens tokens"] | None,
    seen: Bool[np.ndarray, "tokens tokens"],
    rotation: Rotation | None,
) -> Float[Array, "batch heads tokens tokens"]:
    """Return the attention weights of one block for the tokens that enter it; 0 for what is not `seen`."""
    graph, params = nnx.split(blocks)
    block = nnx.merge(graph, jax.tree.map(lambda x: x[index], params))
    normed = block.norm1(tokens if added is None else add_position(tokens, added))
    return block.attn.weights(normed, jnp.where(seen, 0.0 if bias is None else bias, -jnp.inf), rotation)


def check_names(names: Iterable[str], model: Any) -> None:
    """Raise an `InputError` if a model has no activation of one of the names."""
    known = model.activation_names()
    for name in names:
        if name not in known:
            kinds = ", ".join(dict.fromkeys(each.split("/")[0] + "/I" * ("/" in each) for each in known))
            raise InputError(f"model {model.config.name!r} has no activation {name!r}; it has {kinds}")
