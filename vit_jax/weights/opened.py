"""A model ready to use, from weights or a run: with its label names, its preprocessing and its task."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from flax import nnx

from vit_jax import tree
from vit_jax.config import Config, Data, Preprocessing
from vit_jax.errors import InputError
from vit_jax.labels import imagenet_names, parse_names
from vit_jax.models import Backbone
from vit_jax.runs.directory import read_facts
from vit_jax.weights import load
from vit_jax.weights.fetch import fetch
from vit_jax.weights.placement import Placement
from vit_jax.weights.text import read_pair
from vit_jax.weights.zeroshot import AS_IS, classify_by


class Opened(NamedTuple):
    """A model and what its user needs to know.

    Attributes:
        config: a run's own, or one made for weights, with the size, preprocessing and architecture of `model`.
        label_names: the classes of its outputs; None where nothing names them.
        names_from: where the names come from, in words.
        is_run: whether it is a run directory, which says what data it was trained on.
    """

    model: Backbone
    config: Config
    label_names: tuple[str, ...] | None
    names_from: str
    is_run: bool

    def preprocessing(self) -> dict[str, Any]:
        """Return how pictures become the model's input, in JSON's types."""
        return Preprocessing.of(self.config.data, self.config.model).described(self.config.height_width())

    def description(self) -> str:
        """Return two lines for people: the model and its classes; what is done to pictures."""
        count = tree.count(nnx.split(self.model)[1])
        values = self.preprocessing()
        height, width = values.pop("image_size")
        listed = ", ".join(f"{key} {value}" for key, value in values.items())
        classes = f"{self.model.num_classes:,} classes ({self.names_from})" if self.model.num_classes else "no head"
        return f"{self.config.model.name}: {count:,} parameters, {classes}\npictures: {height}x{width} pixels, {listed}"


def open_model(
    where: str | os.PathLike,
    *,
    checkpoint: str = "newest",
    labels: str | os.PathLike | None = None,
    templates: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: Literal["crop", "pad", "stretch", "native"] | None = None,
    host: bool = False,
    **overrides,
) -> Opened:
    """Return the model of a run directory or of weights, ready to use.

    Args:
        where: a run directory, or anything else that `vit_jax.load` takes.
        checkpoint: as for `vit_jax.load`.
        image_size: as for `vit_jax.load`.
        host: as for `vit_jax.load`.
        overrides: other arguments of `vit_jax.load`.
        labels: names of the classes in order, a file or the names with commas between them, see
            `vit_jax.labels.parse_names`. With a CLIP or SigLIP, they are the texts that pictures are classified by.
        templates: of these texts, see `vit_jax.weights.zeroshot.embed_labels`; None: labels are the texts.
        resize: replaces that of the weights' preprocessing.

    Raises:
        InputError: the weights can't be read, or there are more or fewer names than the model has outputs, or it has
            neither a head nor a text tower that would give names a meaning.
    """
    path = fetch(where)
    model = load(where, checkpoint=checkpoint, image_size=image_size, host=host, **overrides)
    is_run = (path / "run.json").is_file()
    names = None if labels is None else parse_names(labels)
    zero_shot = names is not None and not model.num_classes and not is_run
    if templates and not zero_shot:
        raise InputError(
            f"template {templates[0]!r}: only the labels of a CLIP or SigLIP without a head are read as texts"
        )
    if zero_shot:
        # The text tower is on a device only while it reads them.
        model = classify_by(read_pair(str(where), model, Placement()), names, templates or AS_IS)
    ours = model.preprocessing
    data = Data(resize=resize or ours.resize, filter=ours.filter, crop_fraction=ours.crop_fraction)
    facts = {"image_size": model.image_size, "channels": model.channels, "model": model.config}
    config = Config(batch=64, data=data, loss=model.head.loss if zero_shot else "softmax", **facts)
    if is_run:
        recorded = read_facts(path).config
        data = dataclasses.replace(recorded.data, resize=data.resize, packing=None, pictures=None)
        config = dataclasses.replace(recorded, data=data, **facts)
    if zero_shot:
        return Opened(model, config, names, "zero-shot, by texts", is_run)
    if names is None:
        names, names_from = _own_names(model, is_run)
    elif not model.num_classes:
        raise InputError(f"{labels}: the model has no head whose classes it could name")
    elif len(names) != model.num_classes:
        raise InputError(f"{labels}: has {len(names):,} names, but the model has {model.num_classes:,} outputs")
    else:
        names_from = f"named by {labels}"
    return Opened(model, config, names, names_from, is_run)


def _own_names(model: Backbone, is_run: bool) -> tuple[tuple[str, ...] | None, str]:
    if model.label_names is None:
        return None, "without names: give them with --labels=FILE"
    if is_run:
        return model.label_names, "named by the run"
    presumed = model.label_names == imagenet_names(model.num_classes)
    return model.label_names, "ImageNet's, by their number" if presumed else "named by the weights"
