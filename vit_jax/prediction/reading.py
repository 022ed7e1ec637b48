"""Batches of pictures, decoded by threads while the model computes."""

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from vit_jax.config import Config
from vit_jax.data.decode import BadPictureError
from vit_jax.data.rows import decode_row, is_native, picture_shape
from vit_jax.prediction.listing import Asked

# Batches that are decoded, or waiting to be, beside the one that was asked for.
AHEAD = 2


class Pictures(NamedTuple):
    """A batch of pictures.

    Attributes:
        paths: fewer than there are rows in `images` if it is the last batch.
        errors: why each can't be read, or None.
        images: as `vit_jax.data.rows` has them; zeros for what can't be read, and after the last picture.
        grids: rows and columns of patches, of native pictures.
    """

    paths: list[str]
    errors: list[str | None]
    images: UInt8[np.ndarray, "batch ..."]
    grids: Int[np.ndarray, "batch 2"] | None


def read_batches(asked: Iterable[Asked], config: Config, batch: int, threads: int) -> Iterator[Pictures]:
    """Yield pictures as evaluation takes them, in order; holds at most `AHEAD` + 1 batches, however many there are."""
    asked, waiting = iter(asked), collections.deque()
    pool = ThreadPoolExecutor(threads)

    def start() -> None:
        if part := list(itertools.islice(asked, batch)):
            images = np.zeros((batch, *picture_shape(config)), np.uint8)
            grids = np.zeros((batch, 2), np.int32) if is_native(config) else None
            pictures = Pictures([each.path for each in part], [each.error for each in part], images, grids)
            # Thread by thread, not picture by picture: small ones take no longer than handing them over.
            waiting.append((pictures, [pool.submit(_decode, pictures, i, threads, config) for i in range(threads)]))

    try:
        for _ in range(AHEAD):
            start()
        while waiting:
            start()
            pictures, parts = waiting.popleft()
            _finish(parts)
            yield pictures
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(pictures: Pictures, first: int, step: int, config: Config) -> None:
    for row in range(first, len(pictures.paths), step):
        if pictures.errors[row] is None:
            try:
                columns = decode_row(config, _bytes_of(pictures.paths[row]), pictures.images[row])
                if pictures.grids is not None:
                    pictures.grids[row] = columns["grid"]
            except BadPictureError as error:
                pictures.errors[row] = error.reason


def _bytes_of(path: str) -> bytes:
    # Not through pathlib, which interns every name: Python 3.12 never frees them.
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadPictureError(f"picture {path!r} can't be read: {reason}", reason) from error


def _finish(parts: list[Future]) -> None:
    for part in parts:
        part.result()
