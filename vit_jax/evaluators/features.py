"""Features of the pictures of a split: one vector for each, from any activation of the model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.errors import InputError
from vit_jax.evaluators.evaluator import Split, Subject, Watch
from vit_jax.evaluators.rows import make_collect
from vit_jax.models import abstract_model
from vit_jax.models.activations import check_names
from vit_jax.models.position import num_prefix
from vit_jax.step import Batch

POOLINGS = ("token", "gap")


class Features(NamedTuple):
    """Features and labels of pictures, in host memory.

    Attributes:
        vectors: float32.
        labels: numbers of classes.
        others: further columns of a split, by name.
    """

    vectors: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]
    others: dict[str, np.ndarray]


def make_features(subject: Subject, text: str) -> Callable[[Any, Split, Watch], Features]:
    """Return the function that maps parameters and a split to its features, in one pass over its pictures.

    Args:
        text: NAME[:token|:gap]. NAME is any of the model's activations but attention. "pooled" and "logits" are
            vectors as they are. Of "tokens" and "block/I", ":token" takes the class token and ":gap", the default, the
            mean over the patches. "stage/I" and "embedding" are always means over rows and columns.

    Raises:
        InputError: the model has no such activation, or it can't be pooled so.
    """
    name, pool = _parse(subject, text)

    def rows_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
        columns = {key: column for key, column in batch.items() if key not in ("image", "grid", "mask")}
        return columns | {"features": pool(subject.activations(params, batch, name)[name].astype(jnp.float32))}

    collect = make_collect(rows_of, subject.mesh)

    def features(params: Any, split: Split, watch: Watch) -> Features:
        rows = collect(params, watch(split.batches()))
        return Features(rows.pop("features"), rows.pop("label"), rows)

    return features


def _parse(subject: Subject, text: str) -> tuple[str, Callable[[Float[Array, "..."]], Float[Array, "batch dim"]]]:
    name, colon, pooling = text.partition(":")
    where = f"config.evaluators: features={text!r}"
    if colon and pooling not in POOLINGS:
        raise InputError(f"{where}: must be NAME, NAME:token or NAME:gap, where NAME is an activation of the model")
    model = abstract_model(**subject.config.model_facts(subject.task.num_outputs))
    try:
        check_names([name], model)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    kind = name.split("/")[0]
    if kind == "attention":
        raise InputError(f"{where}: attention is no feature of a picture; take pooled, tokens, block/I or stage/I")
    if kind in ("logits", "pooled") and colon:
        raise InputError(f"{where}: {name} is one vector already; leave out :{pooling}")
    # A ResNet's tokens are all patches.
    prefix = num_prefix(model.config) if model.config.patch is not None else 0
    class_token = model.config.patch is not None and model.config.class_token
    if pooling == "token" and (kind not in ("tokens", "block") or not class_token):
        raise InputError(f"{where}: there is no class token in {name} of model {model.config.name!r}; take {name}:gap")

    def pool(activation: Float[Array, "..."]) -> Float[Array, "batch dim"]:
        if activation.ndim == 3:
            return activation[:, 0] if pooling == "token" else activation[:, prefix:].mean(axis=1)
        return activation.mean(axis=(1, 2)) if activation.ndim == 4 else activation

    return name, pool
