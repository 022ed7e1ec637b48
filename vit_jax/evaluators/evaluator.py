"""The evaluator interface: inputs and results."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vit_jax import data, labels
from vit_jax.cluster.sharding import BATCH, batch_rows, place_batch
from vit_jax.config import Config, Evaluation
from vit_jax.data.bad import BadPictures
from vit_jax.data.pipeline import LABEL, Columns
from vit_jax.data.rows import extra_columns, is_native, picture_shape
from vit_jax.data.sources.relabelled import relabel
from vit_jax.data.sources.source import Source
from vit_jax.models.packed import check_packed
from vit_jax.models.text import TextHead
from vit_jax.models.variants import with_model
from vit_jax.step import Batch, make_activations, make_eval_step
from vit_jax.tasks import Task

# Wraps the batches of an evaluation, for example to abort it when the run must stop.
Watch = Callable[[Iterable[Batch]], Iterable[Batch]]
Classes = Literal["model", "any"]
# The head of a model of pictures whose classes are texts: from where its text tower is (None: not said), labels and
# templates. `vit_jax.weights.zeroshot.open_head` is one.
TextHeads = Callable[[str | None, Sequence[str], Sequence[str]], TextHead]


class Results(NamedTuple):
    """The results of an evaluation.

    Attributes:
        scalars: metrics by name.
        tables: what JSON can hold, by name, such as lists of rows {column: value}.
        figures: functions that draw PNG files, by name; see `vit_jax.evaluators.figure`.
    """

    scalars: dict[str, float]
    tables: dict[str, Any]
    figures: dict[str, Callable[[], bytes]]


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
    """The pictures of an evaluation, decoded only once if they fit in memory.

    Attributes:
        label_names: the classes that its labels are numbers of.
    """

    def __init__(self, source: Source, config: Config, columns: Columns, mesh: Mesh, failures: list[Exception]):
        devices = math.prod(mesh.shape[axis] for axis in BATCH)
        # Padding rows don't count, so the batch can be rounded up.
        self._config = dataclasses.replace(config, batch=math.ceil(config.batch / devices) * devices)
        self._columns, self._mesh, self._failures = columns, mesh, failures
        self._rows = batch_rows(self._config.batch, mesh)
        self._bad = BadPictures(len(source), config.data.max_bad)
        self._source = data.prepare(source, self._config, self._bad, columns=columns)
        self.label_names = source.label_names

    def __len__(self) -> int:
        return len(self._source)

    def batches(self) -> Iterator[Batch]:
        """Yield every picture once, as global arrays: "image", the split's columns, and "mask", 0 for padding.

        Where one of several processes can't read, it adds why to its subject's `failures` and goes on with padding,
        since the others would wait for it in the computations on every batch.

        Raises:
            InputError: too many pictures can't be read.
        """
        batches = data.eval_batches(self._source, self._config, self._rows, self._bad, self._columns)
        failed = False
        for _ in range(-(-len(self) // self._config.batch)):
            try:
                batch = self._padding() if failed else next(batches)
            except MemoryError:
                raise
            except Exception as error:
                # Forget the bad pictures, so that the next evaluation tries them again.
                self._bad = BadPictures(len(self), self._config.data.max_bad)
                if jax.process_count() == 1:
                    raise
                self._failures.append(error)
                batch, failed = self._padding(), True
            yield place_batch(batch, self._rows, self._config.batch, self._mesh)

    def _padding(self) -> dict[str, np.ndarray]:
        number, shape = len(self._rows), picture_shape(self._config)
        columns = {**self._columns, **extra_columns(self._config)}
        batch = {"image": np.zeros((number, *shape), np.uint8), "mask": np.zeros(number, np.float32)}
        return batch | {name: np.zeros((number, *x.shape), x.dtype) for name, x in columns.items()}


class Subject:
    """A model to evaluate: pure functions of its parameters, its task, and how its pictures are read.

    Attributes:
        graph: gives the model when merged with parameters.
        outputs: maps parameters and a batch to the task's outputs.
        activations: maps parameters, a batch and names to {name: array}, like the model's own `activations`.
        failures: why this process could not read pictures, if it is one of several.
        text_head: how "zeroshot" gets its texts read; None: not at all.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        task: Task,
        config: Config,
        label_names: tuple[str, ...],
        mesh: Mesh,
        text_head: TextHeads | None = None,
    ):
        self.text_head = text_head
        # Native pictures are cut into patches of the size that the model has.
        self.task, self.config, self.label_names, self.mesh = task, with_model(config), label_names, mesh
        if is_native(config):
            check_packed(self.config.model)
        self.graph = graph
        self.outputs, self.activations = make_eval_step(graph, task), make_activations(graph)
        self.failures: list[Exception] = []
        self._splits: dict[tuple, Split] = {}

    def open(
        self, evaluation: Evaluation, split: str | None = None, classes: tuple[str, ...] | Classes = "model"
    ) -> Split:
        """Return the pictures of an evaluation; evaluations on the same pictures share them.

        Args:
            split: None: the evaluation's own, else `data.val`.
            classes: whose numbers the labels are: "model", with all columns of the task; "any", with "label" as the
                data counts its own classes; or names to match them with, such as those of a training split.

        Raises:
            InputError: they can't be read, their classes can't be matched, or a column is missing.
        """
        where = self._where(evaluation, split)
        if (*where, classes) not in self._splits:
            source = self.source(evaluation, split, classes)
            self._splits[*where, classes] = self.prepare(source, self.task.columns if classes == "model" else LABEL)
        return self._splits[*where, classes]

    def source(
        self, evaluation: Evaluation, split: str | None = None, classes: tuple[str, ...] | Classes = "model"
    ) -> Source:
        """Return the records of an evaluation, undecoded, for a choice by their `labels`; arguments as in `open`.

        Raises:
            InputError: they can't be read, or their classes can't be matched.
        """
        name, path, split = self._where(evaluation, split)
        config = dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, name=name, path=path))
        source = data.open_split(config, split)
        names = self.label_names if classes == "model" else classes
        if names in ("any", source.label_names):
            return source
        return relabel(source, labels.match(source.label_names, names, f"split {split!r} of {name!r}"), names)

    def prepare(self, source: Source, columns: Columns = LABEL) -> Split:
        """Return the pictures of a source, or of a part taken by `vit_jax.data.sources.source.take`, as a split.

        Raises:
            InputError: a column is missing, or too many pictures can't be read.
        """
        return Split(source, self.config, columns, self.mesh, self.failures)

    def _where(self, evaluation: Evaluation, split: str | None) -> tuple[str, str | None, str]:
        own, ours = evaluation, self.config.data
        path = own.path if own.source or own.path else ours.path
        return own.source or ours.name, path, split or own.split or ours.val
