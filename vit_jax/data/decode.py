"""From a picture file to uint8 pixels of the size the model takes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vit_jax.errors import InputError

MODES = {1: "L", 3: "RGB"}


def decode(picture: Path | np.ndarray, image_size: tuple[int, int], channels: int) -> np.ndarray:
    """Return uint8 (height, width, channels): resized to cover `image_size`, the centre cut out.

    Raises:
        InputError: the file can't be decoded, naming it.
    """
    if isinstance(picture, np.ndarray):
        if picture.shape == (*image_size, channels):
            return picture
        image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        return _fit(image, image_size, channels)
    try:
        with Image.open(picture) as image:
            # A JPEG is decoded at the smallest of its scales (1/8 to 1) that still covers the model's input.
            image.draft(MODES[channels], (image_size[1], image_size[0]))
            return _fit(ImageOps.exif_transpose(image), image_size, channels)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise InputError(f"picture {str(picture)!r} can't be read: {reason}; repair or remove it") from error


def _fit(image: Image.Image, image_size: tuple[int, int], channels: int) -> np.ndarray:
    image = image.convert(MODES[channels])
    height, width = image_size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)
