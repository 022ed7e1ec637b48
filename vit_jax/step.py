"""Training state, and the pure functions that make it, update it and evaluate it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vit_jax.config import Config
from vit_jax.data.augment import augment, normalise
from vit_jax.losses import make_targets, softmax_cross_entropy

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """Everything that an update reads and writes. Step k means k updates done."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState


def init_state(params: Any, optimizer: optax.GradientTransformation) -> State:
    """Return the state before the first update."""
    return State(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make_train_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, config: Config, num_classes: int
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """Return the function that makes one update from a batch of uint8 "image" and int "label".

    Its metrics are scalars of this step: loss, accuracy (against the label that weighs most), gradient norm.
    """

    def train_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        # The step's own key: what is random in step k depends on (seed, k) alone, resumed or not.
        augment_key, model_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))
        targets = make_targets(batch["label"], num_classes, config.label_smoothing)
        images, targets = augment(augment_key, normalise(batch["image"]), targets, config.augment)

        def loss_of(params):
            logits = nnx.merge(graph, params)(images, key=model_key)
            return softmax_cross_entropy(logits, targets).mean(), logits

        (loss, logits), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            "accuracy": (logits.argmax(-1) == targets.argmax(-1)).mean(),
            "grad_norm": optax.tree.norm(grads),
        }
        return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state), metrics

    return train_step


def make_eval_step(graph: nnx.GraphDef) -> Callable[[Any, Batch], jax.Array]:
    """Return the function from parameters and a batch of uint8 "image" to float32 logits."""

    def eval_step(params: Any, batch: Batch) -> jax.Array:
        return nnx.merge(graph, params)(normalise(batch["image"]))

    return eval_step
