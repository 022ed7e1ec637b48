"""Transformers' `preprocessor_config.json`: how pictures are prepared, as one of its image processors does it."""

import math
from typing import Any

from vit_jax.errors import InputError
from vit_jax.weights.described import per_channel, preprocessing_fields, preprocessing_of
from vit_jax.weights.huggingface_families import family_for

# PIL's numbers; nearest and Lanczos are read as what is nearest to them here.
FILTERS = {0: "bilinear", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "bilinear", 5: "bilinear"}


def read(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return `Preprocessing`'s fields from the file's content, None without one.

    Raises:
        InputError: it says nothing of size, or something that is unknown here.
    """
    if found is None:
        return None
    mean, std = found.get("image_mean", 0.5), found.get("image_std", 0.5)
    if not found.get("do_normalize", True):
        mean, std = 0.0, 1.0
    number = found.get("resample", 2)
    if number not in FILTERS:
        raise InputError(f"resample={number!r} in preprocessor_config.json: no filter of PIL has this number")
    resize, fraction = ("native", 1.0) if "max_num_patches" in found else _fitted(found)
    return preprocessing_fields(resize=resize, filter=FILTERS[number], crop_fraction=fraction, mean=mean, std=std)


def _fitted(found: dict[str, Any]) -> tuple[str, float]:
    """Return the way of resizing, and the share of the picture that is left by a crop."""
    size, crop = (_sides(found.get(key), key) for key in ("size", "crop_size"))
    if not found.get("do_center_crop", False) and "crop_pct" not in found:
        return ("stretch" if len(size) == 2 else "crop"), 1.0
    if "crop_pct" in found:
        return "crop", found["crop_pct"]
    # Also where all of the picture is resized first, as for DeiT: of square pictures it is the same.
    return "crop", min(min(crop) / min(size), 1.0)


def _sides(size: Any, key: str) -> list[int]:
    """Return the numbers in a size: {"height", "width"}, {"shortest_edge"}, or one number for a square."""
    if isinstance(size, dict):
        sides = [size[name] for name in ("shortest_edge", "height", "width") if size.get(name) is not None]
    else:
        sides = [224 if size is None else size] * 2
    if not sides or any(type(side) is not int or side < 1 for side in sides):
        raise InputError(f"{key}={size!r} in preprocessor_config.json: no height and width, nor shortest_edge")
    return sides


def described(model: Any) -> dict[str, Any]:
    """Return the content for a model; where no processor does what it wants, `not_kept`, pictures are stretched."""
    ours, (height, width) = preprocessing_of(model), model.image_size
    size = {"height": height, "width": width}
    if ours.resize == "native" and _is_naflex(model):
        grid = model.grid(model.image_size)
        kind, fitting = "Siglip2ImageProcessor", {"patch_size": model.config.patch, "max_num_patches": math.prod(grid)}
    elif ours.resize == "crop" and height == width:
        kind = "BitImageProcessor"
        fitting = {
            "size": {"shortest_edge": round(height / ours.crop_fraction)},
            "do_center_crop": True,
            "crop_size": size,
            # The exact share, which the rounded edge doesn't say.
            "crop_pct": ours.crop_fraction,
            "do_convert_rgb": model.channels == 3,
        }
    else:
        kind, fitting = "ViTImageProcessor", {"size": size}
    return {
        "image_processor_type": kind,
        "do_resize": True,
        **fitting,
        "resample": 2 if ours.filter == "bilinear" else 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": per_channel(ours.mean, model.channels),
        "image_std": per_channel(ours.std, model.channels),
    }


def _is_naflex(model: Any) -> bool:
    return family_for(model.config) == "siglip2_vision_model"


def not_kept(model: Any) -> str | None:
    """Return what of a model's preprocessing no image processor does, None where one does it all."""
    ours, (height, width) = preprocessing_of(model), model.image_size
    if ours.resize == "pad":
        return "no image processor pads evenly, so it says to stretch pictures"
    if _is_naflex(model):
        return None if ours.resize == "native" else "the image processor of NaFlex models keeps the shapes of pictures"
    if ours.resize == "native":
        return "no image processor keeps the shapes of pictures for it, so it says to stretch them"
    if ours.resize == "crop" and height != width:
        return f"no image processor crops to the shape of {height}x{width}, so it says to stretch pictures"
    return None
