"""Data: sources of pictures, and batches as a function of the step."""

from vit_jax.data.pipeline import eval_batches, prepare, train_batches
from vit_jax.data.settle import settle
from vit_jax.data.sources import SOURCES, ArraySource, Record, Source, open_sources, open_split, open_train

__all__ = [
    "SOURCES",
    "ArraySource",
    "Record",
    "Source",
    "eval_batches",
    "open_sources",
    "open_split",
    "open_train",
    "prepare",
    "settle",
    "train_batches",
]
