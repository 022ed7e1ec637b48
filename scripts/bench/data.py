"""Read pictures as training does, and measure how fast.

python scripts/benchmark.py data --source=tar:photos.tar --source=folder:DIR --crop=random_resized --image_size=224

Prints a table, and writes the same figures as JSON to --json. Sources:
  memory      50,000 pictures of 32 x 32 in memory, like CIFAR-10
  tar:FILE    the pictures of a tar, read into memory first: measures decoding only
  files:DIR   the pictures below a folder, sorted into classes or not
  NAME:PATH   a training split as named in a config: records:DIR, tfds:cifar10; folder:DIR for DIR/train/CLASS/
"""

import dataclasses
import json
import os
import tarfile
import time
from pathlib import Path

import jax
import numpy as np

from vit_jax import data
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Config, Data, MeshShape
from vit_jax.data.augment import flip
from vit_jax.data.sources.source import ArraySource, Record, Source
from vit_jax.errors import InputError, Parser

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


class ListSource:
    """Pictures of a single class, as paths or encoded bytes."""

    label_names = ("picture",)
    columns = ("label",)

    def __init__(self, pictures: list[Path] | list[bytes]):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Record:
        return Record(self.pictures[index], {"label": 0}, str(index))


def open_source(text: str, config: Config) -> Source:
    """Return the source that an argument names.

    Raises:
        InputError: it can't be read, or has no pictures.
    """
    kind, _, path = text.partition(":")
    if kind == "memory":
        images = np.random.default_rng(0).integers(0, 256, (50_000, *config.height_width(), 3), dtype=np.uint8)
        return ArraySource(images, np.zeros(len(images)), ("picture",))
    if kind == "tar":
        try:
            with tarfile.open(path) as tar:
                members = [member for member in tar if Path(member.name).suffix.lower() in SUFFIXES]
                pictures = [tar.extractfile(member).read() for member in members]
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"tar {path!r} can't be read: {error}") from error
    elif kind == "files":
        pictures = [file for file in sorted(Path(path).rglob("*")) if file.suffix.lower() in SUFFIXES]
    else:
        name, root = ("folder", path) if kind == "folder" else (text, None)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name, path=root))
        return data.open_split(config, "train")
    if not pictures:
        raise InputError(f"{text!r} has no pictures")
    return ListSource(pictures)


def measure(source: Source, config: Config, seconds: float, flipped: bool) -> dict[str, float]:
    """Return pictures per second and per CPU-second, from the source to the device."""
    mesh = make_mesh(MeshShape())
    rows = batch_rows(config.batch, mesh)
    on_device = jax.jit(flip if flipped else lambda _, images: images)
    source = data.prepare(source, config, train=True)
    batches = data.train_batches(source, config, rows, 0, 1 << 40)
    key = jax.random.key(0)

    def read(number: int) -> None:
        for _ in range(number):
            batch = place_batch(next(batches), rows, config.batch, mesh)
            jax.block_until_ready(on_device(key, batch["image"]))

    read(2)
    wall, cpu, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        read(1)
        number += config.batch
    return {
        "images_per_second": number / (time.perf_counter() - wall),
        "images_per_cpu_second": number / (time.process_time() - cpu),
    }


def main(argv: list[str]) -> None:
    """Print how fast each source is read with each number of threads."""
    parser = Parser(__doc__)
    parser.add_argument("--source", action="append", metavar="SOURCE", help="may be repeated (default: memory)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--crop", default="random_resized", choices=["central", "random", "random_resized"])
    parser.add_argument("--threads", default="1,2,4,8", metavar="N,N,...")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure (default: 5)")
    parser.add_argument("--flip", action="store_true", help="mirror on the device too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        threads = [int(number) for number in args.threads.split(",")]
    except ValueError as error:
        raise InputError(f"--threads={args.threads!r}: must be numbers separated by commas, such as 1,2,4") from error

    print(f"{os.cpu_count()} cores, batch {args.batch}, {jax.devices()[0].platform}")
    print(f"{'source':40} {'threads':>7} {'images/s':>10} {'images/CPU-s':>12}")
    results = []
    for text in args.source or ["memory"]:
        in_memory = text == "memory"
        size, crop = (32, "central") if in_memory else (args.image_size, args.crop)
        config = Config(batch=args.batch, image_size=size, data=Data(name="folder", crop=crop, cache_mb=0))
        source = open_source(text, config)
        for number in threads:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, threads=number))
            figures = measure(source, config, args.seconds, args.flip)
            results.append({"source": text, "image_size": size, "crop": crop, "threads": number, **figures})
            speed, per_cpu = figures.values()
            print(f"{text[-40:]:40} {number:7} {speed:10,.0f} {per_cpu:12,.0f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
