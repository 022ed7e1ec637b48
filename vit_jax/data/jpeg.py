"""The fast path: of a JPEG, only the rows and the resolution that a crop needs are decoded.

Most of the time of a JPEG goes into entropy decoding, row by row from the top. A file whose header gives a smaller
height is decoded to that height, which saves what lies below the crop. A crop that is at least twice as large as the
model's input is decoded at 1/2, 3/8, 1/4 or 1/8 of its size.
"""

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

SOI, EOI, SOS, APP1 = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xE1
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
COLORSPACES = {1: "GRAY", 3: "RGB"}

# EXIF orientation: how stored pixels become upright, as (transposed, then upside down, then mirrored).
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
    """What the bytes before the picture say.

    Attributes:
        height, width: pixels as stored, before `turn`.
        turn: what makes the stored pixels upright, see `TURNS`.
        height_at: where the two bytes of the height lie, or None where decoding can't stop early.
    """

    height: int
    width: int
    turn: tuple[bool, bool, bool]
    height_at: int | None


def read_header(data: bytes) -> Header | None:
    """Return the header of a whole JPEG in grey or colour; None for all else, which is left to a general decoder."""
    if data[:2] != SOI:
        return None
    at, frame, turn, start = 2, None, UPRIGHT, None
    while start is None and at + 10 < len(data) and data[at] == 0xFF:
        marker, body = data[at + 1], at + 4
        if marker in (*SEQUENTIAL, PROGRESSIVE):
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            frame = (marker, height, width, data[at + 9], at + 5)
        elif marker == APP1 and data[body : body + 6] == b"Exif\0\0":
            turn = _read_turn(data[body : at + 2 + int.from_bytes(data[at + 2 : body])])
        elif marker == SOS:
            start = at
        at += 2 + int.from_bytes(data[at + 2 : body])
    # Coded pixels never hold the marker of the end: a file without it is cut short.
    if start is None or frame is None or data.rfind(EOI, start) < 0:
        return None
    marker, height, width, components, height_at = frame
    if components not in COLORSPACES or not height or not width:
        return None
    # Decoding can stop early where the rows of all colours follow each other in a single scan.
    single_scan = marker in SEQUENTIAL and data[start + 4] == components
    return Header(height, width, turn, height_at if single_scan else None)


def _read_turn(block: bytes) -> tuple[bool, bool, bool]:
    exif = Image.Exif()
    try:
        exif.load(block)
        return TURNS.get(exif.get(0x0112), UPRIGHT)
    except Exception:  # Whatever is wrong with the block, the pixels are not.
        return UPRIGHT


def decode_rows(
    data: bytes, header: Header, bottom: int | float, shrink: int | float, channels: int, fast: bool = False
) -> np.ndarray:
    """Return uint8 (rows, columns, channels) of the stored picture from its top to at least row `bottom`.

    Where `shrink`, the factor by which the caller will scale it down, is 2 or more, it may come smaller, by `shrink` at
    the most: 1/2, 3/8, 1/4 or 1/8 of its size. With `fast` each 2 x 2 pixels may share their colour.

    Raises:
        ValueError: it can't be decoded.
    """
    # Smooth colours look at the row of colour below, which stands for up to two rows.
    rows = min(header.height, math.ceil(bottom + 2 * max(shrink, 1)))
    if header.height_at is not None and rows < header.height:
        data = bytearray(data)
        data[header.height_at : header.height_at + 2] = rows.to_bytes(2)
    else:
        rows = header.height
    smaller = {}
    if shrink >= 2:
        smaller = dict(min_height=math.ceil(rows / shrink), min_width=math.ceil(header.width / shrink), min_factor=2)
    # The rows that are left over are "extraneous bytes", of which a strict decoder would complain.
    return simplejpeg.decode_jpeg(data, COLORSPACES[channels], fastupsample=fast, strict=False, **smaller)
