"""How well a model that is pre-trained without labels predicts what is hidden, as numbers and as pictures."""

import functools
import itertools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.config import Evaluation, Model
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.figure import figure
from vit_jax.evaluators.rows import make_collect
from vit_jax.step import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # pictures
GREY = 0.5


class Reconstruction:
    """The task's loss, and what else it reports, over a whole split; the same patches are hidden every time.

    The figure "reconstructions" has the first pictures of the split, what was left of them, and what was made of that.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._split = subject.prepare(subject.source(evaluation, classes="any"), {})
        self.pictures = len(self._split)
        self.metrics = ("loss", *subject.task.reported, "count")

        def rows_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            return {"outputs": subject.outputs(params, batch)}

        def pictures_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            model = nnx.merge(subject.graph, params)
            hidden, rebuilt = subject.task.reconstruct(model, batch["image"])
            rows, columns = model.grid(batch["image"].shape[1:3])
            side = model.config.patch
            over = jnp.repeat(jnp.repeat(hidden.reshape(-1, rows, columns), side, axis=1), side, axis=2)
            return {"input": batch["image"], "hidden": over, "rebuilt": _as_pixels(rebuilt, model.config)}

        self._collect, self._draw = (make_collect(function, subject.mesh) for function in (rows_of, pictures_of))

    def __call__(self, params: Any, watch: Watch) -> Results:
        rows = self._collect(params, watch(self._split.batches()))["outputs"]
        means = rows.mean(axis=0, dtype=np.float64).tolist()
        scalars = dict(zip(self.metrics, (*means, len(rows)), strict=True))
        drawn = self._draw(params, itertools.islice(self._split.batches(), 1))
        paint = functools.partial(_paint, {name: array[:SHOWN] for name, array in drawn.items()})
        return Results(scalars, {}, figure("reconstructions", (SHOWN * 1.2, 3.9), paint))


def _as_pixels(images: Float[Array, "batch height width channels"], config: Model) -> Float[Array, "batch _ _ _"]:
    mean, std = (jnp.asarray(values) for values in (config.mean, config.std))
    return jnp.clip(images * std + mean, 0, 1)


def _paint(drawn: dict[str, np.ndarray], empty: "Figure") -> None:
    given = drawn["input"].astype(np.float32) / 255
    left = np.where(drawn["hidden"][..., None], GREY, given)
    axes = empty.subplots(3, len(given), squeeze=False)
    for row, (name, pictures) in enumerate({"input": given, "seen": left, "rebuilt": drawn["rebuilt"]}.items()):
        for ax, picture in zip(axes[row], pictures, strict=True):
            ax.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(name)
