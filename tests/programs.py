"""The programs of docs/export.md that run exported files, as printed there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

PAGE = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
PROGRAMS = {
    "stablehlo" if "from jax" in program else "onnx": program
    for program in re.findall(r"```python\n(import json.*?)```", PAGE, re.DOTALL)
}

EXACT = re.search(r"```python\n(def picture.*?)```", PAGE, re.DOTALL)[1]


def exact_pixels(file: Any, image_size: tuple[int, int], crop_fraction: float) -> np.ndarray:
    """Return the pixels that the page's function makes of a picture."""
    exec(EXACT, names := {"Image": Image, "ImageOps": ImageOps, "np": np})
    return names["picture"](file, image_size, crop_fraction)


def program_pixels(file: Any, image_size: tuple[int, int], crop_fraction: float) -> np.ndarray:
    """Return the pixels that the programs make of a picture, by their own lines."""
    lines = [line for line in PROGRAMS["stablehlo"].splitlines() if line.startswith(("image =", "bleed =", "pixels ="))]
    how = {"crop_fraction": crop_fraction, "filter": "bilinear"}
    names = {"Image": Image, "ImageOps": ImageOps, "np": np, "size": image_size[::-1], "how": how}
    exec("\n".join(lines).replace("sys.argv[1]", "file"), names | (found := {"file": file}), found)
    return found["pixels"]
