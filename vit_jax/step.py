"""Training state, and the pure functions that create, update and evaluate it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from vit_jax import tree
from vit_jax.config import Config
from vit_jax.data.augment import augment
from vit_jax.data.rows import is_native, sequence
from vit_jax.models.packed import mirror
from vit_jax.packing import Packed, as_sequences, pictures_of
from vit_jax.pixels import normalise, standardise
from vit_jax.tasks import Task

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """Everything that an update reads and writes. At step k, k updates are done or skipped.

    Attributes:
        opt_state: of the parameters that are not frozen.
        ema: the moving average of the parameters, float32; None if there is none.
        skipped: number of updates skipped because the loss or the norm of the gradient was not finite.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    ema: Any
    skipped: jax.Array

    @property
    def weights(self) -> Any:
        """The parameters to evaluate: the moving average if there is one, else `params`."""
        return self.params if self.ema is None else self.ema


class Numbers(NamedTuple):
    """The numbers of a config that are inputs of the step: configs that differ in nothing else share one program.

    Attributes:
        lr: the peak learning rate.
    """

    seed: ArrayLike
    lr: ArrayLike
    weight_decay: ArrayLike
    label_smoothing: ArrayLike

    @classmethod
    def of(cls, config: Config) -> "Numbers":
        """Return the numbers of a config, as scalars of NumPy."""
        rest = (config.optim.lr, config.optim.weight_decay, config.label_smoothing)
        return cls(np.uint32(config.seed), *map(np.float32, rest))


def init_state(
    params: Any, optimizer: optax.GradientTransformation, trained: frozenset[str], *, average: bool = False
) -> State:
    """Return the state before the first update, with a moving average if `average`."""
    opt_state = optimizer.init(tree.select(params, trained))
    ema = jax.tree.map(jnp.copy, params) if average else None
    return State(jnp.zeros((), jnp.int32), params, opt_state, ema, jnp.zeros((), jnp.int32))


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    trained: frozenset[str],
    config: Config,
    task: Task,
) -> Callable[[State, Batch, Numbers], tuple[State, Metrics]]:
    """Return the function that makes one update from a batch of uint8 "image" and the columns of the task.

    The values that `Numbers` has are taken from its argument, never from the config.

    Its metrics are scalars of this step: the loss, what the task reports, the gradient norm, the learning rate, and
    whether the update was skipped, 0 or 1. A skipped update leaves everything but the counts unchanged, bit for bit.

    Args:
        schedule: the learning rate by step, as a fraction of its peak.
        optimizer: for the parameters whose names are in `trained`; the others are frozen.
    """

    def train_step(state: State, batch: Batch, numbers: Numbers) -> tuple[State, Metrics]:
        # The step's own key: randomness in step k depends only on (seed, k), resumed or not.
        augment_key, model_key = jax.random.split(jax.random.fold_in(jax.random.key(numbers.seed), state.step))
        targets = task.targets(batch, numbers.label_smoothing)
        images, targets = _augmented(augment_key, batch, targets, config)
        moving = tree.select(state.params, trained)
        frozen = tree.select(state.params, tree.flatten(state.params).keys() - trained)

        def loss_of(
            params: Any, images: jax.Array | Packed, targets: jax.Array, key: jax.Array
        ) -> tuple[jax.Array, Metrics]:
            outputs = task.forward(nnx.merge(graph, tree.union(params, frozen)), images, key)
            loss = task.loss(outputs, targets).mean()
            return loss, {"loss": loss} | {name: x.mean() for name, x in task.report(outputs, targets).items()}

        grad_of = jax.grad(loss_of, has_aux=True)
        if config.accumulate == 1:
            grads, metrics = grad_of(moving, images, targets, model_key)
        else:
            grads, metrics = _mean_over_parts(functools.partial(grad_of, moving), images, targets, model_key, config)
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, moving, weight_decay=numbers.weight_decay)
        # The rate follows the step, not the optimizer's own count, so that it also advances when an update is skipped.
        rate = numbers.lr * schedule(state.step)
        params = tree.union(jax.tree.map(lambda x, update: x - rate * update, moving, updates), frozen)
        ema = None if state.ema is None else _follow(state.ema, params, config.ema, state.step)

        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        skipped = 1 - finite.astype(jnp.int32)
        old = (state.params, state.opt_state, state.ema)
        new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), (params, opt_state, ema), old)
        return State(state.step + 1, *new, state.skipped + skipped), metrics | {"lr": rate, "skipped": skipped}

    return train_step


def _augmented(
    key: jax.Array, batch: Batch, targets: jax.Array, config: Config
) -> tuple[jax.Array | Packed, jax.Array]:
    """Return the pictures of a batch as the model takes them, and their targets."""
    pixels = normalise(batch["image"])
    if not is_native(config):
        images, targets = augment(key, pixels, targets, config.augment)
        return standardise(images, config.model), targets
    packed = as_sequences(standardise(pixels, config.model), batch["grid"], sequence(config)[0])
    if config.augment.flip:
        packed = mirror(packed, jax.random.bernoulli(key, 0.5, packed.grids.shape[:2]))
    return packed, targets


def _mean_over_parts(
    grad_of: Callable[..., tuple[Any, Metrics]],
    images: jax.Array | Packed,
    targets: jax.Array,
    key: jax.Array,
    config: Config,
) -> tuple[Any, Metrics]:
    """Return the gradients and metrics, averaged over the parts of a batch."""
    number = config.accumulate

    def cut(rows: jax.Array) -> jax.Array:
        # Part i has the rows i, i + number, ...: an equal share of each device's rows, so that none are moved.
        return jnp.moveaxis(rows.reshape(len(rows) // number, number, *rows.shape[1:]), 1, 0)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        i, images, targets = part
        result = grad_of(images, targets, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, sums, result), None

    parts = (jnp.arange(number), jax.tree.map(cut, images), cut(targets))
    shapes = jax.eval_shape(lambda part: grad_of(*part[1:], key), jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / number, sums)


def _follow(average: Any, params: Any, decay: float, step: jax.Array) -> Any:
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    # Unlike decay * average + (1 - decay) * x, this form keeps parameters that don't change bit for bit.
    return jax.tree.map(lambda average, x: average + rate * (x - average), average, params)


def make_eval_step(graph: nnx.GraphDef, task: Task) -> Callable[[Any, Batch], jax.Array]:
    """Return the function that maps parameters and a batch of uint8 "image" to the task's outputs, float32."""

    def eval_step(params: Any, batch: Batch) -> jax.Array:
        return task.forward(nnx.merge(graph, params), pictures_of(batch), None)

    return eval_step


def make_activations(graph: nnx.GraphDef) -> Callable[..., dict[str, jax.Array]]:
    """Return the function that maps parameters, a batch of uint8 "image" and names to the model's activations."""

    def activations(params: Any, batch: Batch, *names: str) -> dict[str, jax.Array]:
        return nnx.merge(graph, params).activations(pictures_of(batch), *names)

    return activations
