"""Decodes pictures to uint8 pixels at the model's input size."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from vit_jax.config import Config
from vit_jax.data import jpeg
from vit_jax.data.crop import Box, Choose
from vit_jax.errors import InputError

MODES = {1: "L", 3: "RGB"}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# The pipeline has its own threads, one per picture.
cv2.setNumThreads(0)


class BadPictureError(InputError):
    """A picture that can't be decoded; `reason` says why, without its name."""

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason or message


class Resampling(NamedTuple):
    """How a part of a picture is resized, where `fast` is not asked for.

    Attributes:
        filter: antialiased.
        fill: color of what lies beside the picture, 0 to 255: one number for all channels, or one for each.
    """

    filter: Literal["bilinear", "bicubic"] = "bilinear"
    fill: tuple[int, ...] = (128,)

    @classmethod
    def of(cls, config: Config) -> "Resampling":
        """Return that of a config, whose bars have the mean color of its model's pixels."""
        return cls(config.data.filter, tuple(round(255 * mean) for mean in config.model.mean))


BILINEAR = Resampling()
# The size (height, width) that what is used of a picture is resized to: one for all, or by the part.
Size = tuple[int, int] | Callable[[Box], tuple[int, int]]


def decode(
    picture: Path | bytes | np.ndarray,
    image_size: Size,
    channels: int,
    choose: Choose,
    fast: bool = False,
    out: np.ndarray | None = None,
    resampling: Resampling = BILINEAR,
) -> np.ndarray:
    """Return uint8 (height, width, channels): the part of the upright picture that `choose` selects, resized.

    Grayscale, palette, alpha, CMYK and 16-bit pictures become RGB (or gray, for one channel); alpha is dropped. Only
    the first frame of an animation is used.

    Args:
        picture: a file, its bytes, or uint8 pixels (height, width, 1 or 3).
        fast: resize without an antialiasing filter, as is usual for random crops; what is chosen must be inside.
        out: array that may receive the result, which saves a copy.
        resampling: the filter where not `fast`, and the color of what lies beside the picture.

    Raises:
        BadPictureError: it can't be decoded, or has more than 100 million pixels; the message names the file, if any.
    """
    if isinstance(picture, np.ndarray):
        if picture.shape[-1] != channels:
            picture = _pixels(Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture), channels)
        return _fit(picture, choose(*picture.shape[:2]), image_size, fast, out, resampling)
    try:
        data = picture.read_bytes() if isinstance(picture, Path) else picture
        header = jpeg.read_header(data)
        if header is not None:
            try:
                return _decode_jpeg(data, header, image_size, channels, choose, fast, out, resampling)
            except ValueError:
                pass  # An unusual or damaged JPEG: left to the general decoder.
        with Image.open(io.BytesIO(data)) as image:
            _check_size(*image.size)
            pixels = _pixels(ImageOps.exif_transpose(image), channels)
        return _fit(pixels, choose(*pixels.shape[:2]), image_size, fast, out, resampling)
    except _PILLOW_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else reason
        name = f"picture {str(picture)!r}" if isinstance(picture, Path) else "picture"
        raise BadPictureError(f"{name} can't be read: {reason}", reason) from error


# What Pillow raises for damaged files, depending on the format.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, over {MAX_PIXELS:,}")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip all but the darkest values.
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P":  # By way of RGBA, because Pillow warns about transparency in a palette.
        image = image.convert("RGBA")
    pixels = np.asarray(image.convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_jpeg(
    data: bytes,
    header: jpeg.Header,
    image_size: Size,
    channels: int,
    choose: Choose,
    fast: bool,
    out: np.ndarray | None,
    resampling: Resampling,
) -> np.ndarray:
    _check_size(header.width, header.height)
    transposed, upside_down, mirrored = header.turn
    height, width = (header.width, header.height) if transposed else (header.height, header.width)
    chosen = choose(height, width)
    image_size = image_size(chosen) if callable(image_size) else image_size
    (top, left, box_height, box_width), inner = _inside(chosen, image_size)
    shrink = min(box_height / inner[0], box_width / inner[1])
    # Map the box and the size to stored pixels: undo the turns, last one first.
    top = height - top - box_height if upside_down else top
    left = width - left - box_width if mirrored else left
    box = Box(left, top, box_width, box_height) if transposed else Box(top, left, box_height, box_width)
    size = inner[::-1] if transposed else inner
    if fast:
        data, header, box = jpeg.cut(data, header, box)
    pixels = jpeg.decode_rows(data, header, box.top + box.height, shrink, channels, fast)
    # Decoders scale by eighths, rounding the size up.
    scale = round(8 * pixels.shape[1] / header.width) / 8
    rows = math.ceil(scale * header.height)
    if not fast and len(pixels) < rows:
        # Pillow resizes rows or columns first, by the shape of the picture, and rounds in between: it gets the shape.
        cut, pixels = pixels, np.empty((rows, *pixels.shape[1:]), np.uint8)
        pixels[: len(cut)] = cut
    out = out if header.turn == jpeg.UPRIGHT and inner == image_size else None
    resized = _resize(pixels, Box(*(scale * side for side in box)), size, fast, out, resampling.filter)
    resized = resized.swapaxes(0, 1) if transposed else resized
    return _frame(resized[:: -1 if upside_down else 1, :: -1 if mirrored else 1], image_size, resampling.fill)


def _fit(
    pixels: np.ndarray,
    box: Box,
    image_size: Size,
    fast: bool,
    out: np.ndarray | None,
    resampling: Resampling,
) -> np.ndarray:
    image_size = image_size(box) if callable(image_size) else image_size
    box, inner = _inside(box, image_size)
    resized = _resize(pixels, box, inner, fast, out if inner == image_size else None, resampling.filter)
    return _frame(resized, image_size, resampling.fill)


def _inside(box: Box, image_size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    """Return the part of a box that is inside the picture, and the size it is resized to."""
    if box.top >= 0 and box.left >= 0:
        return box, image_size
    inside = Box(max(box.top, 0), max(box.left, 0), box.height + 2 * min(box.top, 0), box.width + 2 * min(box.left, 0))
    height = max(1, round(image_size[0] * inside.height / box.height))
    return inside, (height, max(1, round(image_size[1] * inside.width / box.width)))


def _frame(pixels: np.ndarray, image_size: tuple[int, int], fill: tuple[int, ...]) -> np.ndarray:
    """Return pixels with bars beside them, as `PIL.ImageOps.pad` has them."""
    height, width, channels = pixels.shape
    if (height, width) == image_size:
        return pixels
    framed = np.empty((*image_size, channels), np.uint8)
    framed[:] = fill
    top, left = round((image_size[0] - height) / 2), round((image_size[1] - width) / 2)
    framed[top : top + height, left : left + width] = pixels
    return framed


def _resize(
    pixels: np.ndarray,
    box: Box,
    image_size: tuple[int, int],
    fast: bool,
    out: np.ndarray | None,
    filter: str,
) -> np.ndarray:
    height, width, channels = pixels.shape
    if pixels.shape[:2] == image_size and box == (0, 0, height, width):
        return pixels
    if fast:
        # Round half up, not to even, so that the same pixels are used wherever the picture was cut.
        top, left = int(box.top + 0.5), int(box.left + 0.5)
        part = pixels[top : top + max(1, round(box.height)), left : left + max(1, round(box.width))]
        factor = int(min(part.shape[0] / image_size[0], part.shape[1] / image_size[1]))
        if factor >= 2:  # Linear interpolation reads only two pixels per axis.
            small = (part.shape[1] // factor, part.shape[0] // factor)
            part = cv2.resize(part[: small[1] * factor, : small[0] * factor], small, interpolation=cv2.INTER_AREA)
        resized = cv2.resize(part, image_size[::-1], out, interpolation=cv2.INTER_LINEAR)
    else:
        image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)
        corners = (box.left, box.top, min(box.left + box.width, width), min(box.top + box.height, height))
        resized = np.asarray(image.resize(image_size[::-1], FILTERS[filter], box=corners))
    return resized.reshape(*image_size, channels)
