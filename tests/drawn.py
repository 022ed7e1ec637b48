"""Models with random parameters, drawn by NumPy so that nothing is compiled, and calls of them that compile once."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import tree
from vit_jax.config import Model
from vit_jax.models import abstract_model

TINY = dict(name="custom/16", width=32, depth=2, num_heads=2, mlp_dim=64)


def drawn_model(*, num_classes=7, image_size=64, channels=3, **options):
    """Return a model with a few thousand parameters by default."""
    config = Model(**(options if "name" in options else TINY | options))
    model = abstract_model(config=config, num_classes=num_classes, image_size=image_size, channels=channels)
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)

    def draw(name, leaf):
        values = rng.standard_normal(leaf.shape, np.float32) * 0.1
        return jnp.asarray(values + 1 if name.endswith("scale") else values)

    return nnx.merge(graph, tree.map_named(draw, nnx.to_pure_dict(state)))


def params_of(model):
    """Return {name: array}."""
    return tree.flatten(nnx.to_pure_dict(nnx.split(model)[1]))


def pictures(height=64, width=64, *, count=2, channels=3):
    """Return pictures of noise in [-1, 1]."""
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (count, height, width, channels)), jnp.float32)


# Parameters are arguments: XLA takes long to fold constants, and models that are alike share a program.
@nnx.jit
def logits_of(model, images):
    """Return the model's logits."""
    return model(images)


@functools.partial(nnx.jit, static_argnums=2)
def activations_of(model, images, names):
    """Return {name: activation}."""
    return model.activations(images, *names)


def encode(model, *size):
    """Return the encoder's output tokens for these pictures."""
    return np.asarray(activations_of(model, pictures(*size), ("tokens",))["tokens"])
