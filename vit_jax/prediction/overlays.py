"""Attention as pictures: each picture beside its heat map."""

import itertools
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.prediction.forward import Predictions
from vit_jax.prediction.tables import Write
from vit_jax.weights.files import replacing

SHOWN = 224  # pixels: smaller pictures are enlarged.


def writing_overlays(folder: Path) -> Write:
    """Return a function that writes FOLDER/NUMBER-NAME.png for each picture; they are numbered as they were asked for.

    A picture that can't be read has a number but no file.

    Raises:
        InputError: the folder can't be made or written; or, from the function, a file can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--attention={folder}: can't be written: {error.strerror}") from error
    numbers = itertools.count()

    def write(found: Predictions) -> None:
        for row, image, heat in zip(found.rows, found.images, found.attention, strict=True):
            number = next(numbers)
            if row.error is None:
                name = re.sub(r"[^\w.-]+", "_", Path(row.path).stem, flags=re.ASCII)[:80]
                with replacing(folder / f"{number:06d}-{name}.png") as part:
                    Image.fromarray(draw(image, heat)).save(part, "PNG")

    return write


def draw(
    picture: UInt8[np.ndarray, "height width channels"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a picture, as the model sees it, beside the same one under its heat map, dark to bright."""
    height, width = picture.shape[:2]
    scale = max(1, -(-SHOWN // min(height, width)))
    size = (width * scale, height * scale)
    picture = cv2.resize(np.broadcast_to(picture, (height, width, 3)).copy(), size, interpolation=cv2.INTER_LINEAR)
    spread = heat.max() - heat.min()
    levels = (heat - heat.min()) / (spread if spread > 0 else 1)
    levels = cv2.resize(levels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    colors = cv2.applyColorMap((255 * levels).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.concatenate([picture, cv2.addWeighted(picture, 0.4, np.ascontiguousarray(colors), 0.6, 0)], axis=1)
