"""Fast JPEG decoding: only the blocks and the resolution that a crop needs.

Most of the time goes into entropy decoding, row by row from the top. A smaller height in the header makes the decoder
stop below the crop. Decoding can start at any restart marker, and `scripts/prepare_data.py` writes one after every
block: only the blocks that touch the crop are assembled into a smaller JPEG. A crop at least twice the model's input
size is decoded at 1/2, 3/8, 1/4 or 1/8 of its size.
"""

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from vit_jax.data.crop import Box

SOI, EOI, SOS, DRI, APP1 = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xDD, 0xE1
RESTART = 0xD0  # The first of eight markers, used in rotation.
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
COLORSPACES = {1: "GRAY", 3: "RGB"}

# The steps that turn stored pixels upright, by EXIF orientation: (transposed, then upside down, then mirrored).
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
UPRIGHT = (False, False, False)


class Header(NamedTuple):
    """The header of a JPEG.

    Attributes:
        height, width: pixels as stored, before `turn`.
        turn: the steps that turn the stored pixels upright, see `TURNS`.
        height_at: offset of the two bytes of the height, followed by those of the width; None if decoding can't stop
            early.
        segment: height and width, in pixels, of the area between two restart markers; None if there are no markers or
            they don't divide each row evenly.
        coded_at: offset of the coded pixels.
    """

    height: int
    width: int
    turn: tuple[bool, bool, bool]
    height_at: int | None
    segment: tuple[int, int] | None
    coded_at: int


def read_header(data: bytes) -> Header | None:
    """Return the header of a complete gray or color JPEG; None for all else, left to the general decoder."""
    if data[:2] != SOI:
        return None
    at, frame, turn, start, interval = 2, None, UPRIGHT, None, 0
    while start is None and at + 10 < len(data) and data[at] == 0xFF:
        marker, body = data[at + 1], at + 4
        if marker in (*SEQUENTIAL, PROGRESSIVE):
            frame = (marker, at)
        elif marker == DRI:
            interval = int.from_bytes(data[body : body + 2])
        elif marker == APP1 and data[body : body + 6] == b"Exif\0\0":
            turn = _read_turn(data[body : at + 2 + int.from_bytes(data[at + 2 : body])])
        elif marker == SOS:
            start = at
        at += 2 + int.from_bytes(data[at + 2 : body])
    # Coded pixels never contain the end marker: a file without it is truncated.
    if start is None or frame is None or data.rfind(EOI, start) < 0:
        return None
    marker, frame_at = frame
    height_at, components = frame_at + 5, data[frame_at + 9]
    height, width = int.from_bytes(data[height_at : height_at + 2]), int.from_bytes(data[height_at + 2 : height_at + 4])
    if components not in COLORSPACES or not height or not width:
        return None
    # Decoding can stop early only if a single scan has the rows of all color components.
    if marker not in SEQUENTIAL or data[start + 4] != components:
        return Header(height, width, turn, None, None, at)
    across, down = divmod(data[frame_at + 11], 16) if components == 3 else (1, 1)
    blocks = -(-width // (8 * across))
    segment = (8 * down, 8 * across * interval) if interval and blocks % interval == 0 else None
    return Header(height, width, turn, height_at, segment, at)


def _read_turn(block: bytes) -> tuple[bool, bool, bool]:
    exif = Image.Exif()
    try:
        exif.load(block)
        return TURNS.get(exif.get(0x0112), UPRIGHT)
    except Exception:  # A broken EXIF block doesn't affect the pixels.
        return UPRIGHT


def cut(data: bytes, header: Header, box: Box) -> tuple[bytes, Header, Box]:
    """Return a JPEG of the segments that touch `box`, its header, and the box in it; or the arguments unchanged.

    It decodes to the same pixels as the whole JPEG if chroma is not smoothed across blocks.
    """
    if header.segment is None:
        return data, header, box
    height, width = header.segment
    down, across = -(-header.height // height), -(-header.width // width)
    coded = np.frombuffer(data, np.uint8, offset=header.coded_at)[: data.rfind(EOI) + 2 - header.coded_at]
    ends = np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] >= RESTART))
    if len(ends) != down * across:
        return data, header, box  # Damaged: the decoder recovers what it can.
    first, left = int(box.top) // height, int(box.left) // width
    last = min(down, -(-math.ceil(box.top + box.height) // height))
    right = min(across, -(-math.ceil(box.left + box.width) // width))
    stops = (ends[right - 1 :: across] + 2)[first:last]  # Each row includes its end marker.
    starts = np.append(-2, ends)[left::across][first:last] + 2
    part = np.concatenate([coded[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)])
    markers = np.flatnonzero((part[:-1] == 0xFF) & (part[1:] >= RESTART)) + 1
    part[markers] = RESTART + np.arange(len(markers)) % 8
    part[-1] = EOI[1]
    top, left = first * height, left * width
    size = (min(last * height, header.height) - top, min(right * width, header.width) - left)
    head = bytearray(data[: header.coded_at])
    head[header.height_at : header.height_at + 4] = size[0].to_bytes(2) + size[1].to_bytes(2)
    header = header._replace(height=size[0], width=size[1])
    return bytes(head) + part.tobytes(), header, Box(box.top - top, box.left - left, box.height, box.width)


def decode_rows(
    data: bytes, header: Header, bottom: int | float, shrink: int | float, channels: int, fast: bool = False
) -> np.ndarray:
    """Return uint8 (rows, columns, channels) of the stored picture from its top to at least row `bottom`.

    If `shrink`, the factor by which the caller will scale it down, is 2 or more, the result may be smaller, by at most
    `shrink`: 1/2, 1/4 or 1/8 of its size, as Pillow can do too. With `fast`, also 3/8, and each 2 x 2 pixels may share
    their color.

    Raises:
        ValueError: it can't be decoded.
    """
    # Smooth chroma upsampling reads the chroma row below, which covers up to two pixel rows.
    rows = min(header.height, math.ceil(bottom + 2 * max(shrink, 1)))
    if header.height_at is not None and rows < header.height:
        data = bytearray(data)
        data[header.height_at : header.height_at + 2] = rows.to_bytes(2)
    else:
        rows = header.height
    smaller = {}
    if shrink >= 2:
        part = shrink if fast else 2 ** min(3, int(math.log2(shrink)))
        smaller = dict(min_height=math.ceil(rows / part), min_width=math.ceil(header.width / part), min_factor=2)
    # The remaining rows are "extraneous bytes", which a strict decoder would reject.
    return simplejpeg.decode_jpeg(data, COLORSPACES[channels], fastupsample=fast, strict=False, **smaller)
