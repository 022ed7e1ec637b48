"""What the runs of a sweep need: steps, parameters, FLOPs and memory, as far as it is known without running them."""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from vit_jax import data, tree
from vit_jax.cluster.sharding import make_mesh, shard_bytes
from vit_jax.config import Config, MeshShape, make_plan
from vit_jax.errors import InputError, nearest
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.experiment import Experiment, batch_shapes, build_experiment
from vit_jax.preflight.flops import count_flops
from vit_jax.sweeps.plan import Run
from vit_jax.weights.initialise import start_from
from vit_jax.weights.placement import Absent
from vit_jax.weights.zeroshot import open_head

BUDGET = 4.0  # seconds of the CPU that tracing different models may take


class Size(NamedTuple):
    """What a run needs, as a whole, on however many devices; None: not counted, as there are too many programs.

    Attributes:
        state: bytes of parameters, optimizer and average.
        error: why the run can't start, in one line; empty if nothing is known against it.
    """

    steps: int | None = None
    parameters: int | None = None
    step_flops: int | None = None
    state: int | None = None
    error: str = ""

    def flops(self) -> int | None:
        """Return the floating-point operations of the whole run."""
        return None if self.step_flops is None else self.step_flops * self.steps


def measure(runs: list[Run], folder: Path) -> list[Size]:
    """Return the size of each run; equal programs are traced once.

    Args:
        folder: of the sweep; only read.
    """
    mesh = _one_device()
    opened, traced, sizes, end = {}, {}, [], time.process_time() + BUDGET
    for run in runs:
        try:
            config, examples, classes = _opened(run.config, opened)
            steps = make_plan(config, examples).total
            key = _program(config, len(classes))
            if key not in traced:
                traced[key] = (
                    _traced(config, classes, examples, mesh, folder / run.name) if time.process_time() < end else Size()
                )
            sizes.append(traced[key]._replace(steps=steps))
        except InputError as error:
            sizes.append(Size(error=str(error)))
    return sizes


def check_metric(run: Run, metric: str, folder: Path) -> None:
    """Raise an `InputError` if a run, of the sweep in `folder`, would not write a metric of its evaluations."""
    mesh = _one_device()
    config, examples, classes = _opened(run.config, {})
    config, experiment = _built(config, classes, examples, mesh, folder / run.name)
    subject = Subject(experiment.graph, experiment.task, config, classes, mesh, open_head)
    names = Evaluators(subject).metrics
    if metric not in names:
        raise InputError(f"--metric={metric}: is not a metric of these runs; {nearest(metric, names)}")


def _opened(config: Config, opened: dict[str, tuple]) -> tuple[Config, int, tuple[str, ...]]:
    """Return the settled config, the number of training pictures and the classes.

    The names of pictures are read once for all runs on the same ones.
    """
    auto = "auto" in (config.total, config.warmup, config.data.val, config.data.test)
    key = repr((config.data, config.task, *((config.total, config.warmup, config.batch) if auto else ())))
    if key not in opened:
        settled, _ = data.settle(config)
        source = data.open_train(settled)
        opened[key] = settled, len(source), source.label_names
    settled, examples, classes = opened[key]
    if auto:
        config = dataclasses.replace(config, data=settled.data, total=settled.total, warmup=settled.warmup)
    return config, examples, classes


def _program(config: Config, classes: int) -> str:
    what = (config.model, config.image_size, config.channels, config.batch, config.accumulate, config.task, config.loss)
    optim = config.optim
    kept = (optim.name, optim.momentum_dtype, optim.last_blocks, optim.layer_decay, optim.lr_mults)
    return repr((what, kept, config.augment, config.ema is None, config.init, classes))


def _one_device() -> Mesh:
    jax.config.update("jax_platforms", "cpu")  # This process computes nothing, and the devices are for the runs.
    return make_mesh(MeshShape(), jax.devices()[:1])


def _built(
    config: Config, classes: tuple[str, ...], examples: int, mesh: Mesh, workdir: Path
) -> tuple[Config, Experiment]:
    config, _ = start_from(config, classes, workdir, Absent(mesh))
    model = dataclasses.replace(config.model, attention="auto")  # That of the runs may not exist on this device.
    config = dataclasses.replace(config, model=model, mesh=MeshShape())
    return config, build_experiment(config, mesh, len(classes), examples)


def _traced(config: Config, classes: tuple[str, ...], examples: int, mesh: Mesh, workdir: Path) -> Size:
    config, experiment = _built(config, classes, examples, mesh, workdir)
    batch = batch_shapes(config, mesh, experiment.task)
    step = experiment.train_step.trace(experiment.shapes, batch, experiment.numbers)
    return Size(
        parameters=tree.count(experiment.shapes.params),
        step_flops=count_flops(step.jaxpr),
        state=shard_bytes(experiment.shapes),
    )
