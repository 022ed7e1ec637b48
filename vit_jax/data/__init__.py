"""Data: sources of pictures, and batches of them as a function of the step."""

from vit_jax.data.pipeline import eval_batches, prepare, train_batches
from vit_jax.data.sources import SOURCES, Source, open_sources

__all__ = ["SOURCES", "Source", "eval_batches", "open_sources", "prepare", "train_batches"]
