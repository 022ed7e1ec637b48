"""All that a run is made from: its data, its experiment, its evaluations; nothing is written."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax import data, tree
from vit_jax.cluster.sharding import batch_rows, make_mesh
from vit_jax.config import Config
from vit_jax.data.bad import BadPictures
from vit_jax.data.sources.source import Source
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.experiment import Experiment, batch_shapes, build_experiment
from vit_jax.models.variants import with_model
from vit_jax.preflight.flops import count_flops
from vit_jax.preflight.keys import check_keys
from vit_jax.runs.directory import Facts
from vit_jax.runs.final import FinalReport
from vit_jax.weights.initialise import Weights, start_from
from vit_jax.weights.placement import OnMesh
from vit_jax.weights.zeroshot import open_head


class Inputs(NamedTuple):
    """What the training loop works on.

    Attributes:
        config: with all that follows from the data and the weights.
        rows: of a batch, those of this process.
        traced: the training step.
        size: what `open_workdir` writes down of it.
    """

    config: Config
    mesh: Mesh
    rows: np.ndarray
    label_names: tuple[str, ...]
    experiment: Experiment
    traced: jax.stages.Traced
    source: Source
    bad: BadPictures
    evaluate: Evaluators
    report: FinalReport
    size: dict[str, int]

    @property
    def facts(self) -> Facts:
        """What readers of the run need besides its parameters."""
        return Facts(self.config, self.label_names)

    def batches(self, config: Config, first: int) -> Iterator[dict[str, np.ndarray]]:
        """Return the batches of the steps from `first`, in the order of the config's seed."""
        plan, columns = self.experiment.plan, self.experiment.task.columns
        return data.train_batches(self.source, with_model(config), self.rows, first, plan.total, self.bad, columns)


def open_inputs(config: Config, workdir: Path, say: Callable[[str], None]) -> tuple[Inputs, Weights | None]:
    """Open what a run is made from, and the weights that it starts from, if there are any.

    Args:
        workdir: may not exist yet.
        say: prints a line for people.

    Raises:
        InputError: the config can't be run here.
    """
    mesh = make_mesh(config.mesh)
    check_keys(config, mesh)
    config, settled = data.settle(config)
    for line in settled:
        say(line)
    source = data.open_train(config)
    label_names = source.label_names
    config, weights = start_from(config, label_names, workdir, OnMesh(mesh))
    experiment = build_experiment(config, mesh, len(label_names), len(source))
    task, plan = experiment.task, experiment.plan
    traced = experiment.train_step.trace(experiment.shapes, batch_shapes(config, mesh, task), experiment.numbers)
    size = {"parameters": tree.count(experiment.shapes.params), "step_flops": count_flops(traced.jaxpr)}
    size |= {"steps": plan.total, "devices": mesh.size}
    say(f"reading {len(source):,} train pictures")
    bad = BadPictures(len(source), config.data.max_bad)
    source = data.prepare(source, with_model(config), bad, train=True, columns=task.columns)
    known = dict(label_names=label_names, mesh=mesh, text_head=open_head)
    subject = functools.partial(Subject, experiment.graph, task, **known)
    evaluate, report = Evaluators(subject(config)), FinalReport(config, subject, workdir)
    for name, number in evaluate.pictures.items():
        say(f"evaluating {name!r}, {number:,} pictures, every {plan.evaluations[name]:,} steps")
    if report.pictures:
        say(f"evaluating 'test', {report.pictures:,} pictures, once, at the end")
    rows = batch_rows(config.batch, mesh)
    return Inputs(config, mesh, rows, label_names, experiment, traced, source, bad, evaluate, report, size), weights
