"""The small experiment that many tests run."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax import data
from vit_jax.architecture import Model
from vit_jax.config import Augment, Config, Data, Optim, make_plan
from vit_jax.models import init_params, model_graph
from vit_jax.optim import build_optimizer, build_schedule
from vit_jax.sharding import batch_rows, place_batch, tree_shardings
from vit_jax.step import State, init_state, make_train_step

MODEL = Model(name="Ti/2", width=32, depth=2, num_heads=2, mlp_dim=64, pool="gap", position="sincos2d", drop_path=0.1)
CONFIG = Config(
    seed=5,
    batch=64,
    image_size=8,
    channels=1,
    total="20st",
    warmup="5st",
    log_every="1st",
    eval_every="10st",
    save_every="4st",
    model=MODEL,
    data=Data(name="digits", threads=2),
    augment=Augment(flip=True, mixup=0.1),
    optim=Optim(lr=1e-2, weight_decay=0.05),
)

# The same as a config file, for runs of the command.
FILE = f"""
from ml_collections import ConfigDict
def get_config(arg=None):
    return ConfigDict({dataclasses.asdict(CONFIG)!r})
"""


def run_steps(config: Config, mesh: Mesh, number: int) -> tuple[list[float], Any]:
    """Return the losses of the first steps on a mesh, and the state after them."""
    source = data.open_sources(config)["train"]
    facts = config.model_facts(10)
    plan = make_plan(config, len(source))
    rows = batch_rows(config.batch, mesh)

    def begin(key: jax.Array) -> State:
        params = init_params(key, **facts)
        return init_state(params, build_optimizer(config.optim, build_schedule(config.optim, plan.total, 5), params))

    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(begin, key)
    shardings = tree_shardings(shapes, mesh)
    optimizer = build_optimizer(config.optim, build_schedule(config.optim, plan.total, 5), shapes.params)
    state = jax.jit(begin, out_shardings=shardings)(key)
    step = jax.jit(
        make_train_step(model_graph(**facts), optimizer, config, 10),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    losses = []
    for batch in data.train_batches(source, config, rows, 0, number):
        state, metrics = step(state, place_batch(batch, rows, config.batch, mesh))
        losses.append(float(metrics["loss"]))
    return losses, state
