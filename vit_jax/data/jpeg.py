"""The fast path: of a JPEG, only the blocks and the resolution that a crop needs are decoded.

Most of the time of a JPEG goes into entropy decoding, row by row from the top. A file whose header gives a smaller
height is decoded to that height, which saves what lies below the crop. Between restart markers, which
`scripts/prepare_data.py` writes after every block, decoding can begin anywhere: only the blocks that touch the crop are
put together as a smaller JPEG. A crop that is at least twice as large as the model's input is decoded at 1/2, 3/8, 1/4
or 1/8 of its size.
"""

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from vit_jax.data.crop import Box

SOI, EOI, SOS, DRI, APP1 = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xDD, 0xE1
RESTART = 0xD0  # The first of eight markers, which take turns.
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
        height_at: where the two bytes of the height lie, and after them those of the width; None where decoding can't
            stop early.
        segment: height and width, in pixels, of what lies between two restart markers; None where nothing of a row
            lies between them.
        coded_at: where the coded pixels begin.
    """

    height: int
    width: int
    turn: tuple[bool, bool, bool]
    height_at: int | None
    segment: tuple[int, int] | None
    coded_at: int


def read_header(data: bytes) -> Header | None:
    """Return the header of a whole JPEG in grey or colour; None for all else, which is left to a general decoder."""
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
    # Coded pixels never hold the marker of the end: a file without it is cut short.
    if start is None or frame is None or data.rfind(EOI, start) < 0:
        return None
    marker, frame_at = frame
    height_at, components = frame_at + 5, data[frame_at + 9]
    height, width = int.from_bytes(data[height_at : height_at + 2]), int.from_bytes(data[height_at + 2 : height_at + 4])
    if components not in COLORSPACES or not height or not width:
        return None
    # Decoding can stop early where the rows of all colours follow each other in a single scan.
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
    except Exception:  # Whatever is wrong with the block, the pixels are not.
        return UPRIGHT


def cut(data: bytes, header: Header, box: Box) -> tuple[bytes, Header, Box]:
    """Return the JPEG of the segments that touch `box`, its header, and the box in it; or all as it is.

    The pixels decoded from it are the same as from the whole, where colours are not smoothed across blocks.
    """
    if header.segment is None:
        return data, header, box
    height, width = header.segment
    down, across = -(-header.height // height), -(-header.width // width)
    coded = np.frombuffer(data, np.uint8, offset=header.coded_at)[: data.rfind(EOI) + 2 - header.coded_at]
    ends = np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] >= RESTART))
    if len(ends) != down * across:
        return data, header, box  # Damaged: the decoder decides what is left of it.
    first, left = int(box.top) // height, int(box.left) // width
    last = min(down, -(-math.ceil(box.top + box.height) // height))
    right = min(across, -(-math.ceil(box.left + box.width) // width))
    stops = (ends[right - 1 :: across] + 2)[first:last]  # Each row with the marker at its end.
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
