"""The same function in other parameters, for formats whose positions are a learned table.

Fixed positions, and those learned per row and column, are written out for one grid of patches; the tokens before them
get the positions that a format wants of them, or give up theirs.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import tree
from vit_jax.models import ViT, abstract_model
from vit_jax.models.position import num_prefix
from vit_jax.weights.supported import holds, prefix_of


def bake(model: ViT, supported: dict) -> tuple[ViT, list[str]]:
    """Return a model with the same outputs that is nearer to what a format's table holds, and what was done, in words.

    What still isn't held then is for `refuse` to name. Positions in the blocks are left as they are.
    """
    config, done = model.config, []
    params = tree.flatten(nnx.to_pure_dict(nnx.split(model)[1]))
    if config.position_at != "stem" or config.position == "relative":
        return model, []
    if not holds(supported, "position", config.position):
        table = _table(model)
        prefix = params.get("position/prefix")
        params = {name: array for name, array in params.items() if not name.startswith("position/")}
        params["position/grid"] = table
        owned = prefix is not None
        if owned:
            params["position/prefix"] = prefix
        config = dataclasses.replace(config, position="learned", prefix_position=owned or not num_prefix(config))
        size = "x".join(map(str, model.image_size))
        done.append(f"positions ({model.config.position}) are written out as a learned table, for {size} pixels")
    prefix = prefix_of(config)
    if not holds(supported, "prefix", prefix):
        if prefix == "zero":
            params["position/prefix"] = jnp.zeros((num_prefix(config), config.width))
            done.append("class and register tokens get positions of zeros")
        else:
            _add_to_tokens(params, params.pop("position/prefix"))
            done.append("positions of class and register tokens are added to the tokens themselves")
        config = dataclasses.replace(config, prefix_position=prefix == "zero")
    if not holds(supported, "pool_norm", config.pool_norm) and config.pool in ("token", "none"):
        # The norm acts on each token by itself: before a token is picked or after makes no difference.
        names = {"before": "norm", "after": "pool_norm"}
        wanted = supported["pool_norm"][0]
        old, new = f"{names[config.pool_norm]}/", f"{names[wanted]}/"
        params = {new + name.removeprefix(old) if name.startswith(old) else name: x for name, x in params.items()}
        config = dataclasses.replace(config, pool_norm=wanted)
    return (model, []) if config == model.config else (_rebuilt(model, config, params), done)


def _table(model: ViT) -> np.ndarray:
    """Return what is added to each patch, (rows, columns, width)."""
    shape = (*model.grid(model.image_size), model.config.width)
    if model.position is None:
        return np.zeros(shape, np.float32)
    return np.asarray(model.position(shape[:2]))[num_prefix(model.config) :].reshape(shape)


def _add_to_tokens(params: dict, prefix: jnp.ndarray) -> None:
    """Add positions to the tokens they are of, the class token first: what the model does itself."""
    start = 0
    for name in ("cls", "registers"):
        if name in params:
            stop = start + params[name].shape[0]
            params[name] = params[name] + prefix[start:stop]
            start = stop


def _rebuilt(model: ViT, config, params: dict) -> ViT:
    facts = {"num_classes": model.num_classes, "image_size": model.image_size, "channels": model.channels}
    graph, state = nnx.split(abstract_model(config=config, **facts))
    rebuilt = nnx.merge(graph, tree.map_named(lambda name, _: params[name], nnx.to_pure_dict(state)))
    rebuilt.label_names, rebuilt.preprocessing = model.label_names, model.preprocessing
    return rebuilt
