"""Figures of evaluators, drawn as PNG files when they are wanted."""

import functools
import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 22  # characters of a label


def figure(name: str, size: tuple[float, float], paint: Callable[["Figure"], None]) -> dict[str, Callable[[], bytes]]:
    """Return {name: function that draws the figure as a PNG file}; {} if matplotlib isn't installed.

    Args:
        size: width and height in inches, of 110 pixels.
        paint: draws into an empty figure.
    """
    if find_spec("matplotlib") is None:
        return {}
    return {name: functools.partial(_draw, size, paint)}


def caption(label: str) -> str:
    """Return a label as matplotlib shows it unchanged, cut to `LONGEST` characters."""
    label = " ".join(label.split())
    short = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
    return short.replace("$", r"\$")


def _draw(size: tuple[float, float], paint: Callable[["Figure"], None]) -> bytes:
    from matplotlib.figure import Figure

    empty, file = Figure(figsize=size, layout="constrained"), io.BytesIO()
    paint(empty)
    with warnings.catch_warnings():
        # The font may lack a script that labels are written in; the figure then has boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        empty.savefig(file, format="png", dpi=110)
    return file.getvalue()
