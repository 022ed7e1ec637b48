"""The evaluator interface: inputs and results."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flax import nnx
from jax.sharding import Mesh

from vit_jax import data
from vit_jax.cluster.sharding import BATCH, batch_rows, place_batch
from vit_jax.config import Config, Evaluation
from vit_jax.data.bad import BadPictures
from vit_jax.errors import InputError
from vit_jax.step import Batch, make_activations, make_eval_step
from vit_jax.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Wraps the batches of an evaluation, for example to abort it when the run must stop.
Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


class Results(NamedTuple):
    """The results of an evaluation.

    Attributes:
        scalars: metrics by name.
        tables: lists of rows, each {column: value}, by name.
        figures: matplotlib figures by name; empty if it isn't installed.
    """

    scalars: dict[str, float]
    tables: dict[str, list[dict[str, Any]]]
    figures: dict[str, "Figure"]


class Evaluator(Protocol):
    """One evaluation of a model, ready to run.

    Attributes:
        metrics: names of the scalars it returns.
        pictures: number of forward passes per evaluation.
    """

    metrics: tuple[str, ...]
    pictures: int

    def __call__(self, params: Any, watch: Watch) -> Results:
        """Evaluate parameters that are on the model's mesh; every process must call this."""


class Split:
    """The pictures of an evaluation, decoded only once if they fit in memory."""

    def __init__(self, source: data.Source, config: Config, task: Task, mesh: Mesh):
        devices = math.prod(mesh.shape[axis] for axis in BATCH)
        # Padding rows don't count, so the batch can be rounded up.
        self._config = dataclasses.replace(config, batch=math.ceil(config.batch / devices) * devices)
        self._task, self._mesh, self._rows = task, mesh, batch_rows(self._config.batch, mesh)
        self._bad = BadPictures(len(source), config.data.max_bad)
        self._source = data.prepare(source, self._config, self._bad, columns=task.columns)

    def __len__(self) -> int:
        return len(self._source)

    def batches(self) -> Iterator[Batch]:
        """Yield every picture once, as global arrays: "image", the task's columns, and "mask", 0 for padding.

        Raises:
            InputError: too many pictures can't be read.
        """
        for batch in data.eval_batches(self._source, self._config, self._rows, self._bad, self._task.columns):
            yield place_batch(batch, self._rows, self._config.batch, self._mesh)


class Subject:
    """A model to evaluate: pure functions of its parameters, its task, and how its pictures are read.

    Attributes:
        outputs: maps parameters and a batch to the task's outputs.
        activations: maps parameters, a batch and names to {name: array}, like the model's own `activations`.
    """

    def __init__(self, graph: nnx.GraphDef, task: Task, config: Config, label_names: tuple[str, ...], mesh: Mesh):
        self.task, self.config, self.label_names, self.mesh = task, config, label_names, mesh
        self.outputs, self.activations = make_eval_step(graph, task), make_activations(graph)
        self._splits: dict[tuple, Split] = {}

    def open(self, evaluation: Evaluation) -> Split:
        """Return the pictures of an evaluation; evaluations on the same pictures share them.

        Raises:
            InputError: they can't be read, or their classes or columns don't match the task.
        """
        own, ours = evaluation, self.config.data
        name, split = own.source or ours.name, own.split or ours.val
        path = own.path if own.source or own.path else ours.path
        if (name, path, split) not in self._splits:
            config = dataclasses.replace(self.config, data=dataclasses.replace(ours, name=name, path=path))
            source = data.open_split(config, split, self.label_names)
            if source.label_names != self.label_names:
                raise InputError(f"split {split!r} of {name!r} has other classes than the model")
            self._splits[name, path, split] = Split(source, config, self.task, self.mesh)
        return self._splits[name, path, split]
