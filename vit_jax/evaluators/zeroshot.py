"""Accuracy of classifying pictures by the names of their classes, which no one trained for."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from vit_jax import labels
from vit_jax.config import Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators.classification import TOP, place_of
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.evaluators.rows import make_collect
from vit_jax.models import abstract_model
from vit_jax.models.text import TextHead
from vit_jax.step import Batch


class ZeroShot:
    """The class whose name, in a prompt, is nearest to a picture (Radford et al., 2021, section 3.1).

    The model is the image tower of the CLIP or SigLIP at `text`, or was trained on from it: its pooled features go
    through the projection of that one. The classes are the data's own, by their names; those of ImageNet, also where
    they are WordNet ids, go by the first of their names, or by all where two classes share the first. The embedding of
    a class is the mean over its prompts, one for each of `templates`. Nothing is fitted.

    Metrics: "accuracy"; "top5", only with more than five classes; and "count". The table "texts" has the name that
    each class goes by.
    """

    def __init__(self, subject: Subject, evaluation: Evaluation):
        if subject.text_head is None:
            raise InputError("config.evaluators: zeroshot needs text_head=vit_jax.weights.zeroshot.open_head")
        self._split = subject.open(evaluation, classes="any")
        self._names = self._split.label_names
        self._texts = labels.spoken(self._names)
        head = subject.text_head(evaluation.text, self._texts, evaluation.templates)
        _check(head, subject)
        self.pictures = len(self._split)
        self.metrics = ("accuracy", *(["top5"] if len(self._names) > TOP else []), "count")

        def rows_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            logits = head(subject.activations(params, batch, "pooled")["pooled"])
            return {"place": place_of(logits, batch["label"])}

        self._collect = make_collect(rows_of, subject.mesh)

    def __call__(self, params: Any, watch: Watch) -> Results:
        places = self._collect(params, watch(self._split.batches()))["place"]
        values = {"accuracy": float(np.mean(places < 1)), "top5": float(np.mean(places < TOP)), "count": len(places)}
        table = [{"label": name, "text": text} for name, text in zip(self._names, self._texts, strict=True)]
        return Results({name: values[name] for name in self.metrics}, {"texts": table}, {})


def _check(head: TextHead, subject: Subject) -> None:
    graph, params = nnx.split(abstract_model(**subject.config.model_facts(subject.task.num_outputs)))
    images = jax.ShapeDtypeStruct((1, *subject.config.height_width(), subject.config.channels), np.uint8)
    found = jax.eval_shape(lambda *x: nnx.merge(graph, x[0]).activations(x[1], "pooled")["pooled"], params, images)
    found = found.shape[-1]
    if found != head.features:
        raise InputError(
            f"config.evaluators: zeroshot: the model's features are {found} wide, those that go with the texts "
            f"{head.features}; text= must name the CLIP or SigLIP that its image tower is from"
        )
