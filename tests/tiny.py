"""The small experiment that many tests use."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax import data
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Augment, Config, Data, MeshShape, Model, Optim
from vit_jax.experiment import batch_shapes, build_experiment
from vit_jax.preflight.flops import count_flops

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
    augment=Augment(flip=True),
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
    rows = batch_rows(config.batch, mesh)
    experiment = build_experiment(config, mesh, 10, len(source))
    state = experiment.init(jax.random.key(config.seed))
    losses = []
    for batch in data.train_batches(source, config, rows, 0, number):
        state, metrics = experiment.train_step(state, place_batch(batch, rows, config.batch, mesh), experiment.numbers)
        losses.append(float(metrics["loss"]))
    return losses, state


def step_flops(config: Config) -> int:
    """Return the floating-point operations of a training step of ten classes."""
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    experiment = build_experiment(config, mesh, 10, 50_000)
    batch = batch_shapes(config, mesh, experiment.task)
    return count_flops(experiment.train_step.trace(experiment.shapes, batch, experiment.numbers).jaxpr)
