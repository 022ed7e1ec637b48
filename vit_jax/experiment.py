"""An experiment on a mesh: its plan, its state and how that is sharded, its step."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.cluster.sharding import BATCH, gather_when_read, tree_shardings, with_shardings
from vit_jax.config import PRETRAINING, Config, Plan, make_plan
from vit_jax.data.rows import extra_columns, is_native, picture_shape, sequence
from vit_jax.errors import InputError
from vit_jax.models import abstract_model, init_params
from vit_jax.models.drops import subset
from vit_jax.models.layers import compute_dtype
from vit_jax.models.packed import check_packed
from vit_jax.models.variants import resolve, with_model
from vit_jax.optim import build_optimizer, build_schedule
from vit_jax.optim.rates import trained_names
from vit_jax.step import Batch, Metrics, Numbers, State, init_state, make_eval_step, make_train_step
from vit_jax.tasks import Task, build_task


class Experiment(NamedTuple):
    """What the training loop runs, all of it known before any array is allocated.

    Attributes:
        shapes: shape, dtype and sharding of every array of the state.
        init: maps a key to the state before the first update, created sharded: no device holds more than its part.
        start: maps parameters, which are donated, to the state before the first update.
        train_step: jitted; the state it is given is donated.
        numbers: the last argument of `train_step`.
        graph: gives the model when merged with parameters.
        eval_step: maps parameters and a batch to the task's outputs.
    """

    task: Task
    graph: nnx.GraphDef
    plan: Plan
    schedule: optax.Schedule
    shapes: State
    init: Callable[[jax.Array], State]
    start: Callable[[Any], State]
    train_step: Callable[[State, Batch, Numbers], tuple[State, Metrics]]
    numbers: Numbers
    eval_step: Callable[..., jax.Array]


def build_experiment(config: Config, mesh: Mesh, num_classes: int, examples: int) -> Experiment:
    """Return the experiment that a config describes, for a training split of this size; allocates nothing.

    Raises:
        InputError: the batch can't be cut as the config requires, a pattern of the config matches no parameter, or the
            task needs labels and the data has none.
    """
    _check_parts(config, mesh)
    config = unrolled(config, mesh.devices.flat[0].platform, mesh.size, mesh.shape["fsdp"])
    task = build_task(config, num_classes)
    if task.columns and not num_classes:
        raise InputError(
            f"config.task={config.task!r} needs {' and '.join(task.columns)} for every picture, and the data has no "
            f"labels: put the pictures into a folder for each class, or choose {', '.join(PRETRAINING)}"
        )
    facts = config.model_facts(task.num_outputs)
    model = abstract_model(**facts)
    params = nnx.to_pure_dict(nnx.state(model))
    gather_when_read(model, mesh, compute_dtype(config.model))
    graph = nnx.split(model)[0]
    plan = make_plan(config, examples)
    relative = build_schedule(dataclasses.replace(config.optim, lr=1.0), plan)
    optimizer, trained = build_optimizer(config.optim, params), trained_names(config.optim, params)

    def start(params: Any) -> State:
        return init_state(params, optimizer, trained, average=config.ema is not None)

    def init(key: jax.Array) -> State:
        return start(init_params(key, **facts))

    shapes = jax.eval_shape(start, params)
    shardings = tree_shardings(shapes, mesh)
    train_step = jax.jit(
        make_train_step(graph, optimizer, relative, trained, with_model(config), task),
        donate_argnums=0,
        out_shardings=(shardings, NamedSharding(mesh, P())),
    )
    return Experiment(
        task=task,
        graph=graph,
        plan=plan,
        schedule=build_schedule(config.optim, plan),
        shapes=with_shardings(shapes, shardings),
        init=jax.jit(init, out_shardings=shardings),
        start=jax.jit(start, donate_argnums=0, out_shardings=shardings),
        train_step=train_step,
        numbers=Numbers.of(config),
        eval_step=make_eval_step(graph, task),
    )


def batch_shapes(config: Config, mesh: Mesh, task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and shardings of a batch as the step takes it."""
    config = with_model(config)
    shape = picture_shape(config)
    if is_native(config):
        shape = (sequence(config)[1], *shape[1:])
    picture = jax.ShapeDtypeStruct(shape, jnp.uint8)
    sharding = NamedSharding(mesh, P(BATCH))
    return {
        name: jax.ShapeDtypeStruct((config.batch, *each.shape), each.dtype, sharding=sharding)
        for name, each in {"image": picture, **extra_columns(config), **task.columns}.items()
    }


# On a CPU, blocks are unrolled while the attention weights of all of them take no more memory than this, in bytes.
UNROLLED = 2**30


def unrolled(config: Config, platform: str, devices: int, fsdp: int) -> Config:
    """Return the config with `model.unroll` set, if it is None.

    Between the iterations of a loop, GPUs and CPUs copy what is kept for the backward pass; with a single iteration
    they don't. With `fsdp`, however, blocks must run one after the other, or all are gathered at once. And on a CPU,
    XLA keeps what was to be recomputed in a single iteration. Several CPU devices stand for others that are not here.
    """
    model = resolve(config.model)
    if config.model.unroll is not None or model.depth is None:
        return config
    if platform == "cpu":
        weights = 4 * config.batch * model.num_heads * (math.prod(config.height_width()) // model.patch**2) ** 2
        at_once = devices == 1 and model.remat == "none" and model.depth * weights <= UNROLLED
    else:
        at_once = platform in ("gpu", "cuda", "rocm") and fsdp == 1
    unroll = model.depth if at_once else 1
    return dataclasses.replace(config, model=dataclasses.replace(config.model, unroll=unroll))


def _check_parts(config: Config, mesh: Mesh) -> None:
    if config.model.attention == "cudnn" and mesh.devices.flat[0].platform == "cpu":
        raise InputError("config.model.attention='cudnn' needs a GPU, and there is none here; use 'auto'")
    devices = math.prod(mesh.shape[axis] for axis in BATCH)
    if is_native(config):
        _check_native(with_model(config), devices)
    rows, rest = divmod(config.batch, devices * config.accumulate)
    if rest:
        raise InputError(
            f"config.batch={config.batch} can't be cut into config.accumulate={config.accumulate} equal parts on "
            f"{devices} devices (data x fsdp of the mesh); make it a multiple of {devices * config.accumulate}"
        )
    if config.model.drop_path_subset and config.model.drop_path:
        size, kept = subset(rows * devices, config.model.drop_path)
        if rows % size:
            raise InputError(
                f"config.model.drop_path_subset drops from groups of {size} pictures, but a device has {rows} at a "
                f"time (batch / devices / accumulate); make that a multiple of {size}"
            )
        if not 0 < kept < size:
            raise InputError(
                f"config.model.drop_path={config.model.drop_path} drops {'none' if kept else 'all'} of {size} "
                f"pictures; with drop_path_subset it must be near one of 1/{size} to {size - 1}/{size}"
            )


def _check_native(config: Config, devices: int) -> None:
    check_packed(config.model)
    number, share = sequence(config)
    if config.batch % (devices * number):
        length = number * share
        raise InputError(
            f"config.batch={config.batch} can't be cut into sequences of {number} pictures ({length} patches) on "
            f"{devices} devices (data x fsdp of the mesh); make it a multiple of {devices * number}, or set "
            "config.data.packing and config.data.pictures"
        )
