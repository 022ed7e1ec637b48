"""Pictures with two labels: two pictures of a data set side by side, with both labels in a CSV file.

python -m tests.pairs CIFAR OUT [--pairs=10000]
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.data.crop import Box
from vit_jax.data.decode import decode


def compose(source: data.Source, out: Path, split: str, number: int, channels: int = 3) -> None:
    """Write pairs of a source, drawn with a fixed seed, as OUT/SPLIT/I.png, and OUT/SPLIT.csv, which lists them."""
    (out / split).mkdir(parents=True)
    pairs = np.random.default_rng(len(source)).integers(len(source), size=(number, 2))
    with (out / f"{split}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "left"])
        for i, pair in enumerate(pairs):
            records = [source[int(index)] for index in pair]
            names = [source.label_names[record.columns["label"]] for record in records]
            whole = [pixels(record.picture, channels) for record in records]
            picture = np.concatenate(whole, axis=1)
            path = f"{split}/{i}.png"
            Image.fromarray(picture.squeeze(-1) if channels == 1 else picture).save(out / path)
            writer.writerow([path, ";".join(sorted(set(names))), names[0]])


def pixels(picture, channels: int) -> np.ndarray:
    """Return a picture unchanged, uint8 (height, width, channels)."""
    if isinstance(picture, np.ndarray):
        return picture
    with Image.open(picture) as image:
        size = image.size[::-1]
    return decode(picture, size, channels, lambda height, width: Box(0, 0, height, width))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=10_000)
    args = parser.parse_args()
    sources = data.open_sources(Config(data=Data(name="folder", path=str(args.source))))
    compose(sources["train"], args.out, "train", args.pairs)
    compose(sources["val"], args.out, "test", args.pairs // 5)
