"""Names of classes, and matching the classes of data and models by them, never by their order."""

from vit_jax.labels.files import parse_names, read_names
from vit_jax.labels.imagenet import imagenet_ids, imagenet_names, spoken, told_apart
from vit_jax.labels.matching import match

__all__ = ["imagenet_ids", "imagenet_names", "match", "parse_names", "read_names", "spoken", "told_apart"]
