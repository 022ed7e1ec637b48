"""Pre-training without labels: what the tasks of it share."""

import abc
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vit_jax.config import PRETRAINING, Config
from vit_jax.errors import InputError
from vit_jax.losses import Smoothing
from vit_jax.models.variants import kind_of, resolve
from vit_jax.pixels import as_input
from vit_jax.tasks.task import Batch, Outputs, Task

Pixels = Float[Array, "batch patches pixels"]
NoTargets = Float[Array, "batch 0"]
Images = Float[Array, "batch height width channels"]

# Evaluation hides the same patches at every step, so that its losses can be compared.
EVALUATION_SEED = 0


class Pretraining(Task):
    """A task whose targets are the pictures themselves; no label is read.

    Its outputs are a row of numbers for each picture: the loss, and then `reported`.

    Attributes:
        reported: names of the metrics besides the loss.
    """

    evaluators = ("reconstruction", "fewshot", "knn", "linear_probe")
    best = "loss"
    columns: ClassVar[dict[str, jax.ShapeDtypeStruct]] = {}
    reported: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config, num_classes: int):
        """Create the task; it has no classes.

        Raises:
            InputError: the config needs labels, or the task does not support the model.
        """
        self.num_outputs, self._name, self._settings = 0, config.task, config.pretrain
        self._model = model = resolve(config.model)
        labelled = {"label_smoothing": config.label_smoothing, "loss": config.loss if config.loss != "softmax" else 0}
        labelled |= {f"augment.{key}": getattr(config.augment, key) for key in ("mixup", "cutmix")}
        for key, value in labelled.items():
            if value:
                raise InputError(f"config.{key}={value!r}: task {config.task!r} reads no labels; leave it out")
        if kind_of(model.name) != "ViT" or model.resnet is not None or model.tokenizer is not None:
            raise InputError(f"config.task={config.task!r} needs a pure ViT, not {model.name!r}")
        if math.prod(config.height_width()) < 2 * model.patch**2:
            raise InputError(
                f"config.task={config.task!r}: of a single patch of {model.patch} pixels none can be hidden"
            )

    @abc.abstractmethod
    def look(
        self, model: Any, images: Images, key: Key[Array, ""], noise: Key[Array, ""] | None
    ) -> tuple[Outputs, Bool[Array, "batch patches"], Pixels]:
        """Return the outputs, which patches were hidden, and the pixels that are predicted for them.

        Args:
            key: draws what is hidden.
            noise: of dropout and stochastic depth; None: neither.
        """

    def targets(self, batch: Batch, smoothing: Smoothing = 0.0) -> NoTargets:
        return jnp.zeros((len(batch["image"]), 0))

    def forward(self, model: Any, images: jax.Array, key: jax.Array | None) -> Outputs:
        """Return each picture's loss and `reported`; without a key, by fixed draws."""
        return self._look(model, images, key)[0]

    def reconstruct(self, model: Any, images: jax.Array) -> tuple[Bool[Array, "batch patches"], Images]:
        """Return which patches evaluation hides, and the pictures with those patches as predicted, normalised."""
        _, hidden, pixels = self._look(model, images, None)
        patches = patchify(as_input(images, model.channels, model.config), model.config.patch)
        grid = model.grid(images.shape[1:3])
        return hidden, unpatchify(jnp.where(hidden[:, :, None], pixels, patches), grid, model.config.patch)

    def _look(self, model: Any, images: jax.Array, key: jax.Array | None) -> tuple[jax.Array, ...]:
        images = as_input(images, model.channels, model.config)
        if key is None:
            return self.look(model, images, jax.random.key(EVALUATION_SEED), None)
        return self.look(model, images, *jax.random.split(key))

    def loss(self, outputs: Outputs, targets: NoTargets) -> Float[Array, " batch"]:
        return outputs[:, 0]

    def report(self, outputs: Outputs, targets: NoTargets) -> dict[str, Float[Array, " batch"]]:
        return {name: outputs[:, i] for i, name in enumerate(self.reported, start=1)}

    def hidden(self, patches: int) -> int:
        """Return how many of the patches are hidden, at least 1 and not all."""
        share = PRETRAINING[self._name] if self._settings.mask is None else self._settings.mask
        return min(max(round(share * patches), 1), patches - 1)


def patchify(images: Images, patch: int) -> Pixels:
    """Return pictures as patches of `patch * patch * channels` numbers, row by row."""
    batch, height, width, channels = images.shape
    cut = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Pixels, grid: tuple[int, int], patch: int) -> Images:
    """Undo `patchify` for a (rows, columns) grid."""
    batch, _, numbers = patches.shape
    cut = patches.reshape(batch, *grid, patch, patch, numbers // patch**2)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, grid[0] * patch, grid[1] * patch, -1)


def normalised(patches: Pixels) -> tuple[Pixels, Float[Array, "batch patches 1"], Float[Array, "batch patches 1"]]:
    """Return patches of mean 0 and variance 1, with what they had (He et al., 2022, section 4.2)."""
    mean, deviation = patches.mean(-1, keepdims=True), jnp.sqrt(patches.var(-1, keepdims=True) + 1e-6)
    return (patches - mean) / deviation, mean, deviation


def compare_pixels(
    outputs: Pixels, pixels: Pixels, hidden: Bool[Array, "batch patches"]
) -> tuple[Outputs, Bool[Array, "batch patches"], Pixels]:
    """Return what `Pretraining.look` does where the outputs are pixels that are normalised patch by patch."""
    target, mean, deviation = normalised(pixels)
    loss = mean_over(jnp.square(outputs - target).mean(-1), hidden)
    return loss[:, None], hidden, outputs * deviation + mean


def mean_over(values: Float[Array, "batch patches"], where: Bool[Array, "batch patches"]) -> Float[Array, " batch"]:
    """Return the mean over the patches where it is True."""
    return jnp.where(where, values, 0).sum(-1) / where.sum(-1)
