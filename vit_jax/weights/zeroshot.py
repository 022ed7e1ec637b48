"""Zero-shot classification: a model of pictures whose classes are texts (Radford et al., 2021)."""

import os
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from vit_jax.errors import InputError
from vit_jax.models import ViT
from vit_jax.models.text import ImageText, TextHead, unit, with_head
from vit_jax.weights import load

BATCH = 64  # texts that are encoded at a time
AS_IS = ("{}",)


def embed_labels(
    pair: ImageText, labels: Sequence[str], templates: Sequence[str] = AS_IS
) -> Float[np.ndarray, "labels dim"]:
    """Return the embedding of each label: the mean of its prompts' embeddings, which have length 1, as it has.

    See Radford et al. (2021), section 3.1.4.

    Args:
        templates: each a prompt with "{}" where the label goes.

    Raises:
        InputError: a label is empty or there twice, or a template has no "{}"; a tokenizer is missing.
    """
    for template in templates or [""]:
        if template.count("{}") != 1:
            raise InputError(f"template {template!r}: needs '{{}}', once, where the label goes: 'a photo of a {{}}.'")
    first: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if not label.strip():
            raise InputError(f"label {number} is empty; every class needs a text")
        if first.setdefault(label, number) != number:
            raise InputError(f"label {label!r} is there twice, as numbers {first[label]} and {number}")
    prompts = [template.replace("{}", label) for label in labels for template in templates]
    found = _embed(pair, prompts).reshape(len(labels), len(templates), -1)
    return np.asarray(unit(found.mean(axis=1)))


def _embed(pair: ImageText, texts: list[str]) -> Float[np.ndarray, "texts dim"]:
    tokens = pair.tokenize(texts)
    graph, params = nnx.split(pair.text)
    params = jax.device_put(nnx.to_pure_dict(params))
    encode = jax.jit(lambda params, tokens: unit(nnx.merge(graph, params)(tokens)))
    # Of one size, so that one program is compiled.
    size = min(BATCH, len(tokens))
    parts = [tokens[first : first + size] for first in range(0, len(tokens), size)]
    padded = [np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge") for part in parts]
    return np.concatenate([np.asarray(encode(params, part)) for part in padded])[: len(tokens)]


def classify_by(pair: ImageText, labels: Sequence[str], templates: Sequence[str] = AS_IS) -> ViT:
    """Return the ViT of a pair, changed in place, with labels as its head; arguments as for `embed_labels`.

    It predicts, is evaluated and exported like any other; its probabilities are those of `pair.loss`.

    Raises:
        InputError: as for `embed_labels`; or one label alone is to share the whole probability.
    """
    if len(labels) < 2 and pair.loss == "softmax":
        raise InputError("one label alone always has probability 1 in a CLIP; give at least two")
    model = with_head(pair.image, TextHead(pair, embed_labels(pair, labels, templates)))
    model.label_names = tuple(labels)
    return model


def open_head(where: str | os.PathLike | None, labels: Sequence[str], templates: Sequence[str] = AS_IS) -> TextHead:
    """Return the head of labels alone, of the pair that is at `where`, for an image tower like its own.

    Raises:
        InputError: as for `embed_labels`, or there is no pair.
    """
    if where is None:
        raise InputError(
            "config.evaluators: zeroshot needs text=WHERE, the CLIP or SigLIP whose text tower reads labels"
        )
    pair = load(where, text=True, host=True)
    return TextHead(pair, embed_labels(pair, labels, templates))
