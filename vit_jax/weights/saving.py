"""Writing a model's weights for other code bases."""

import os
import pathlib

import numpy as np
from flax import nnx

from vit_jax import tree
from vit_jax.errors import InputError, nearest
from vit_jax.models import Backbone, BiT, ViT
from vit_jax.models.text import ImageText, TextHead
from vit_jax.models.variants import kind_of
from vit_jax.weights import huggingface_pictures, timm_naflex
from vit_jax.weights.baked import bake
from vit_jax.weights.described import preprocessing_of
from vit_jax.weights.formats import DESCRIBED, ENDINGS, FORMATS
from vit_jax.weights.rules import write
from vit_jax.weights.supported import refuse


def save(model: Backbone, where: str | os.PathLike, format: str | None = None) -> tuple[str, ...]:
    """Write a model's weights for another code base, atomically; return what a reader should know, a line each.

    Label names and preprocessing are written where the format has a place for them. Positions that it has none for are
    written out as its learned table.

    Args:
        where: a path; the ending chooses the format: `.npz` Google's, `.safetensors` timm's, none a Transformers
            directory.
        format: "google", "timm", "huggingface", "big_vision" or "bit", whatever the ending; "timm" without the ending
            `.safetensors` is a directory that `timm.create_model("local-dir:DIR", pretrained=True)` reads. Models for
            pictures in their own shapes (`preprocessing.resize="native"`) become timm's `naflexvit` if positions follow
            as it has them, by any `resample` but "bilinear".

    Raises:
        InputError: the format is unknown or can't hold the model (everything it can't is named), or a disk error.
    """
    path = pathlib.Path(where)
    if isinstance(model, ImageText):
        raise InputError(f"{where}: text towers are not written; save the image tower, model.image")
    if isinstance(model, ViT) and isinstance(model.head, TextHead):
        raise InputError(f"{where}: no format of weights holds texts as a head; export it, to StableHLO or ONNX")
    if "://" in str(where):
        raise InputError(f"{where}: weights are saved to a path on this machine")
    if format is None and path.suffix not in ENDINGS:
        raise InputError(f"{where}: no format ends so; use .npz, .safetensors, none for a directory, or format=")
    format = format or ENDINGS[path.suffix]
    if format not in FORMATS:
        raise InputError(f"format={format!r} is unknown; {nearest(format, FORMATS)}")
    if isinstance(model, BiT) and format == "google":
        # Google published both under the same ending.
        format = "bit"
    if format == "timm" and timm_naflex.is_naflex(model):
        format = "naflexvit"
    if model.label_names is not None and len(model.label_names) != model.num_classes:
        counts = f"{len(model.label_names):,} label names, but {model.num_classes:,} outputs"
        raise InputError(f"{where}: the model has {counts}; set model.label_names")
    module, done = FORMATS[format], []
    table = {"BiT": "SUPPORTED_BIT", "Swin": "SUPPORTED_SWIN", "ViT": "SUPPORTED"}[kind_of(model.config.name)]
    supported = getattr(module, table, None)
    supported = supported(model.config) if callable(supported) else supported
    if supported is None:
        raise InputError(f"a {format} file can't hold the model {model.config.name!r}")
    if isinstance(model, ViT):
        model, done = bake(model, supported)
    refuse(model.config, supported, format)
    params = {name: np.asarray(leaf) for name, leaf in tree.flatten(nnx.to_pure_dict(nnx.split(model)[1])).items()}
    module.write(path, write(module.rules(model.config), params), model)
    return (*done, _names(model, format), _preprocessing(model, format))


def _names(model: Backbone, format: str) -> str:
    if model.label_names is None:
        return "label names: none are known"
    if format not in DESCRIBED:
        return "label names: not kept, the format has no place for them"
    return f"label names: {'; '.join(model.label_names[:3])}{'; ...' if model.num_classes > 3 else ''}"


def _preprocessing(model: Backbone, format: str) -> str:
    ours, size = preprocessing_of(model), "x".join(map(str, model.image_size))
    values = ours.described(model.image_size)
    wanted = ", ".join(f"{key} {values[key]}" for key in ("resize", "filter", "crop_fraction", "mean", "std"))
    if format not in DESCRIBED:
        return f"preprocessing: not kept, the format has no place for it: {wanted}"
    if format == "huggingface" and (lacking := huggingface_pictures.not_kept(model)):
        return f"preprocessing: not kept, {lacking}: {wanted}"
    if format == "timm" and ours.resize == "native":
        return f"preprocessing: not kept, timm's say one shape for all pictures: {wanted}"
    whole = f"; what already is {size} is left whole here, and cropped there too"
    return f"preprocessing: {wanted}{whole if ours.resize == 'crop' and ours.crop_fraction < 1 else ''}"
