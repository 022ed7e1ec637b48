"""An experiment on a mesh: its plan, its state and where each array of it lies, its step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.config import Config, Plan, make_plan
from vit_jax.models import abstract_model, init_params
from vit_jax.models.layers import compute_dtype
from vit_jax.optim import build_optimizer, build_schedule
from vit_jax.rates import trained_names
from vit_jax.sharding import gather_when_read, tree_shardings, with_shardings
from vit_jax.step import Batch, Metrics, State, init_state, make_eval_step, make_train_step


class Experiment(NamedTuple):
    """What the loop runs, all of it known before any array is there.

    Attributes:
        shapes: shape, dtype and sharding of every array of the state.
        init: from a key to the state before the first update; it is born sharded: no device holds more than its part.
        start: from parameters, which are gone then, to the state before the first update.
        train_step: jitted; the state it is given is gone.
        eval_step: from parameters and a batch to logits.
    """

    plan: Plan
    schedule: optax.Schedule
    shapes: State
    init: Callable[[jax.Array], State]
    start: Callable[[Any], State]
    train_step: Callable[[State, Batch], tuple[State, Metrics]]
    eval_step: Callable[..., jax.Array]


def build_experiment(config: Config, mesh: Mesh, num_classes: int, examples: int) -> Experiment:
    """Return what a config describes, for a training split of so many classes and pictures; allocates nothing."""
    facts = config.model_facts(num_classes)
    model = abstract_model(**facts)
    gather_when_read(model, mesh, compute_dtype(config.model))
    graph = nnx.split(model)[0]
    plan = make_plan(config, examples)
    schedule = build_schedule(config.optim, plan)
    draw = functools.partial(init_params, **facts)
    key = jax.random.key(config.seed)
    params = jax.eval_shape(draw, key)
    optimizer, trained = build_optimizer(config.optim, params), trained_names(config.optim, params)

    def start(params: Any) -> State:
        return init_state(params, optimizer, trained, average=config.ema is not None)

    def init(key: jax.Array) -> State:
        return start(draw(key))

    shapes = jax.eval_shape(init, key)
    shardings = tree_shardings(shapes, mesh)
    train_step = jax.jit(
        make_train_step(graph, optimizer, schedule, trained, config, num_classes),
        donate_argnums=0,
        out_shardings=(shardings, NamedSharding(mesh, P())),
    )
    return Experiment(
        plan=plan,
        schedule=schedule,
        shapes=with_shardings(shapes, shardings),
        init=jax.jit(init, out_shardings=shardings),
        start=jax.jit(start, donate_argnums=0, out_shardings=shardings),
        train_step=train_step,
        eval_step=make_eval_step(graph),
    )
