"""Read pictures as training does, and measure how fast.

python scripts/benchmark.py data --source=tar:photos.tar --source=folder:DIR --crop=random_resized --image_size=224

Prints a table, and writes the same figures as JSON to --json. With --peer=PYTHON, tf.data reads every tar:FILE too, in
its own process, and all take turns. Sources:
  memory      50,000 pictures of 32 x 32 in memory, like CIFAR-10
  tar:FILE    the pictures of a tar, read into memory first: measures decoding only
  files:DIR   the pictures below a folder, sorted into classes or not
  NAME:PATH   a training split as named in a config: records:DIR, tfds:cifar10; folder:DIR for DIR/train/CLASS/
"""

import dataclasses
import functools
import json
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench.peer import Peer, check_python
from bench.report import describe_machine, every_turn, write_report

from vit_jax import data
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Config, Data, MeshShape
from vit_jax.data.augment import flip
from vit_jax.data.sources.source import ArraySource, Record, Source
from vit_jax.errors import InputError, Parser

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

Turn = tuple[int, float, float]  # pictures, seconds, CPU seconds


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


def make_reader(source: Source, config: Config, flipped: bool) -> Callable[[float], Turn]:
    """Return a function that reads from the source to the device for so many seconds."""
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

    def turn(seconds: float) -> Turn:
        wall, cpu, number = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - wall < seconds:
            read(1)
            number += config.batch
        return number, time.perf_counter() - wall, time.process_time() - cpu

    read(2)
    return turn


def main(argv: list[str]) -> None:
    """Print how fast each source is read with each number of threads."""
    parser = Parser(__doc__)
    parser.add_argument("--source", action="append", metavar="SOURCE", help="may be repeated (default: memory)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--crop", default="random_resized", choices=["central", "random", "random_resized"])
    parser.add_argument("--threads", default="1,2,4,8", metavar="N,N,...")
    parser.add_argument("--rounds", type=int, default=1, help="turns; figures are medians (default: 1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each turn (default: 5)")
    parser.add_argument("--peer", metavar="PYTHON", help="compare tar:FILE with tf.data under this Python")
    parser.add_argument("--flip", action="store_true", help="mirror on the device too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    try:
        threads = [int(number) for number in args.threads.split(",")]
    except ValueError as error:
        raise InputError(f"--threads={args.threads!r}: must be numbers separated by commas, such as 1,2,4") from error

    sources = args.source or ["memory"]
    if args.peer:
        check_python(args.peer)
        if args.crop != "random_resized" or not any(text.startswith("tar:") for text in sources):
            raise InputError("--peer: tf.data reads tar:FILE by --crop=random_resized alone")
    print(describe_machine(), flush=True)
    contenders = {}
    for text in sources:
        in_memory = text == "memory"
        size, crop = (32, "central") if in_memory else (args.image_size, args.crop)
        config = Config(batch=args.batch, image_size=size, data=Data(name="folder", crop=crop, cache_mb=0))
        source = open_source(text, config)
        for number in threads:
            threaded = dataclasses.replace(config, data=dataclasses.replace(config.data, threads=number))
            read = make_reader(source, threaded, args.flip)
            contenders[text, size, crop, number] = functools.partial(read, args.seconds)
            if args.peer and text.startswith("tar:"):
                options = [f"--image_size={size}", f"--batch={args.batch}", f"--threads={number}"]
                peer = Peer(args.peer, "tfdata_peer.py", text.removeprefix("tar:"), *options, needs="TensorFlow")
                print(json.dumps(peer.facts), flush=True)
                contenders[f"tf.data {text}", size, crop, number] = functools.partial(peer.ask, args.seconds)
    turns = every_turn(contenders, args.rounds)
    write_report([_row(*facts, each) for facts, each in turns.items()], args.json, args.markdown)


def _row(source: str, image_size: int, crop: str, threads: int, turns: list[Turn]) -> dict[str, Any]:
    per_cpu = [pictures / cpu for pictures, _, cpu in turns]
    return {
        "source": source,
        "image": image_size,
        "crop": crop,
        "threads": threads,
        "images/s": statistics.median(pictures / wall for pictures, wall, _ in turns),
        "images/CPU-s": statistics.median(per_cpu),
        "lowest": min(per_cpu),
        "highest": max(per_cpu),
    }
