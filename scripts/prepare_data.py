"""Convert a data set to ArrayRecord shards, which training reads fast, as `records:OUT`.

    python scripts/prepare_data.py SRC OUT [--short_side=320] [--verify]
    python scripts/prepare_data.py SRC OUT --task=$SLURM_ARRAY_TASK_ID/64     one of 64 jobs, 0/64 to 63/64

SRC is a folder SPLIT/CLASS/**/*.jpg, a tar of one (not compressed), or a source of config.data.name such as tfds:NAME.
If stopped, the same command continues: finished shards are never written again, unfinished ones never read. The same
SRC gives the same bytes, and training reads the same pictures in the same order as from SRC itself.
"""

import argparse
import hashlib
import io
import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tqdm import tqdm

from vit_jax.config import Config
from vit_jax.config.files import override, parse_overrides
from vit_jax.data import Source, open_split
from vit_jax.data.crop import Box
from vit_jax.data.decode import decode
from vit_jax.data.sources.records import FORMAT, LABEL, RecordsSource, read_manifest, shard_name
from vit_jax.data.sources.tar import in_order, open_tar
from vit_jax.data.sources.tfds import find_builder
from vit_jax.errors import InputError, Parser, run_command

# Options for shrunk pictures. A restart marker after each block lets training decode only the blocks that its crop
# touches; that costs 4 % of a file, and optimized Huffman tables save as much.
JPEG = {"optimize": True, "restart_marker_blocks": 1}
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
ORIENTATION = 0x0112  # EXIF


class Shard(NamedTuple):
    """The records `number`, `number + of`, ... of a split."""

    split: str
    number: int
    of: int

    def path(self, out: Path, ending: str) -> Path:
        return out / f"{shard_name(self.split, self.number, self.of)}.{ending}"


def open_splits(src: str, splits: str | None, config: Config) -> dict[str, Source]:
    """Return every split of SRC, or those named "train,test"."""
    named = splits.split(",") if splits else None
    if os.path.isfile(src):
        found = open_tar(src)
        if missing := set(named or ()).difference(found):
            raise InputError(f"tar {src!r} has no split {min(missing)!r}; there is {', '.join(found)}")
        return {split: found[split] for split in named or found}
    if os.path.isdir(src):
        inside = [path.name for path in Path(src).iterdir() if path.is_dir() and not path.name.startswith(".")]
        if not any(path.is_dir() for split in inside for path in (Path(src) / split).iterdir()):
            raise InputError(
                f"{src!r} holds no SPLIT/CLASS/*.jpg, such as train/cat/1.jpg: {describe_contents(inside)}"
            )
        config = override(config, {"data.name": "folder", "data.path": repr(src)})
        named = named or in_order(inside)
    elif ":" in src:
        config = override(config, {"data.name": repr(src)})
        kind, _, where = src.partition(":")
        named = named or (in_order(find_builder(where, config.data.path).info.splits) if kind == "tfds" else None)
    else:
        raise InputError(f"{src!r} does not exist; give a folder, a tar, or a source such as tfds:NAME")
    if not named:
        raise InputError(f"{src!r}: which splits? --splits=train,test")
    sources = {}
    for split in named:
        sources[split] = open_split(config, split, sources[named[0]].label_names if sources else None)
        if "label" not in sources[split].columns:
            raise InputError(f"{src!r}: prepared records hold one label per picture; train on this source directly")
    return sources


def describe_contents(folders: list[str]) -> str:
    """Return what a folder holds in place of splits."""
    if not folders:
        return "it has no subfolders"
    some = ", ".join(map(repr, sorted(folders)[:3]))
    return f"there are no subfolders in {some}; if these are classes, give the folder above"


def cap(picture: bytes, short_side: int, quality: int) -> bytes:
    """Return a picture whose shorter side is at most `short_side`: unchanged, or shrunk, as a JPEG of this quality."""
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size[::-1] if image.getexif().get(ORIENTATION, 1) >= 5 else image.size
        channels = 1 if image.mode in GREY_MODES else 3
    if min(width, height) <= short_side:
        return picture
    scale = short_side / min(width, height)
    size = (max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    pixels = decode(picture, size, channels, lambda height, width: Box(0, 0, height, width))
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels).save(file, "jpeg", quality=quality, **JPEG)
    return file.getvalue()


def write_shard(
    source: Source, shard: Shard, out: Path, short_side: int | None, quality: int, count: Callable[[], None]
) -> None:
    """Write a shard and, once it is complete and renamed, its facts."""
    path = shard.path(out, "array_record")
    partial = path.with_suffix(".partial")
    labels, bad, shrunk = [], [], 0
    writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
    for index in range(shard.number, len(source), shard.of):
        picture, columns, _ = source[index]
        label = columns["label"]
        name = str(picture) if isinstance(picture, Path) else f"record {index} of {shard.split}"
        if isinstance(picture, np.ndarray):
            raise InputError("this source holds pixels in memory: there is nothing to prepare")
        kept = picture.read_bytes() if isinstance(picture, Path) else picture
        if short_side is not None:
            # Pictures that can't be decoded are kept unchanged: training counts them and uses the next one instead.
            try:
                capped = cap(kept, short_side, quality)
                shrunk += capped is not kept
                kept = capped
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                bad.append(index)
                tqdm.write(f"can't be decoded, kept as it is: {name}", file=sys.stderr)
        writer.write(LABEL.pack(label) + kept)
        labels.append(label)
        count()
    writer.close()
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"name": path.stem, "pictures": len(labels), "bytes": partial.stat().st_size, "sha256": digest}
    os.replace(partial, path)
    write_json(shard.path(out, "json"), facts | {"shrunk": shrunk, "bad": bad, "labels": labels}, indent=None)


def write_json(path: Path, values: dict[str, Any], indent: int | None = 1) -> None:
    """Write a JSON file atomically, even if other processes write it too."""
    partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.partial")
    partial.write_text(json.dumps(values, indent=indent) + "\n")
    os.replace(partial, path)


def write_manifest(plan: dict[str, Any], shards: list[Shard], out: Path) -> None:
    """Write the manifest, from the facts of each shard."""
    splits = {}
    for split in plan["splits"]:
        facts = [json.loads(shard.path(out, "json").read_text()) for shard in shards if shard.split == split]
        counts = Counter(label for fact in facts for label in fact.pop("labels"))
        per_class = {name: counts[label] for label, name in enumerate(plan["label_names"])}
        splits[split] = {"pictures": sum(fact["pictures"] for fact in facts), "per_class": per_class, "shards": facts}
    write_json(out / "manifest.json", plan | {"splits": splits})


def verify(sources: dict[str, Source], shards: list[Shard], out: Path, compare: bool, threads: int) -> None:
    """Check all checksums, and the label of every record against the source; if `compare`, also its bytes."""
    manifest = read_manifest(out)

    def check(shard: Shard, count: Callable[[], None]) -> None:
        path = shard.path(out, "array_record")
        facts = manifest["splits"][shard.split]["shards"][shard.number]
        labels = json.loads(shard.path(out, "json").read_text())["labels"]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        source = sources[shard.split]
        indices = range(shard.number, len(source), shard.of)
        if digest != facts["sha256"] or len(labels) != len(indices):
            raise InputError(f"{str(path)!r} is damaged: delete it and {path.stem}.json, and run again")
        found = RecordsSource([path], np.array(labels, np.int32), source.label_names)
        for position, index in enumerate(indices):
            record, expected = found[position], source[index]
            same = record.columns["label"] == expected.columns["label"] == labels[position]
            if same and compare:
                picture = expected.picture
                same = record.picture == (picture.read_bytes() if isinstance(picture, Path) else picture)
            if not same:
                raise InputError(f"{str(path)!r}: record {position} differs from record {index} of the source")
            count()

    run_all(check, shards, sources, threads, "verifying")


def run_all(
    work: Callable[[Shard, Callable[[], None]], None],
    shards: list[Shard],
    sources: dict[str, Source],
    threads: int,
    title: str,
) -> None:
    """Call `work(shard, count)` for every shard, one per thread; pictures are decoded without the GIL."""
    total = sum(len(range(shard.number, len(sources[shard.split]), shard.of)) for shard in shards)
    stopped = threading.Event()

    def count() -> None:
        # After an interrupt or an error, don't wait for shards to finish.
        if stopped.is_set():
            raise InterruptedError("stopped")
        bar.update()

    with tqdm(total=total, desc=title, unit=" pictures", mininterval=0.5) as bar, ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, shard, count) for shard in shards]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def parse_task(text: str) -> tuple[int, int]:
    """Return (3, 64) for "3/64"."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise InputError(f"--task={text}: must be I/N with I from 0 to N-1, such as 3/64")
    return int(number), int(of)


def write(args: argparse.Namespace, sources: dict[str, Source], shards: list[Shard], plan: dict[str, Any]) -> None:
    """Write this task's missing shards; once all shards of all tasks are finished, write the manifest."""
    args.out.mkdir(parents=True, exist_ok=True)
    place = args.out / "plan.json"
    if not place.exists():
        write_json(place, plan)
    if json.loads(place.read_text()) != json.loads(json.dumps(plan)):
        raise InputError(f"{str(args.out)!r} holds the shards of other data or options (plan.json); choose another OUT")

    def fill(shard: Shard, count: Callable[[], None]) -> None:
        write_shard(sources[shard.split], shard, args.out, args.short_side, args.quality, count)

    waiting = [shard for shard in shards[args.task[0] :: args.task[1]] if not shard.path(args.out, "json").exists()]
    if waiting:
        run_all(fill, waiting, sources, args.threads, "preparing")
    missing = sum(not shard.path(args.out, "json").exists() for shard in shards)
    if missing:
        print(f"{args.out}: {len(shards) - missing} of {len(shards)} shards are finished")
        return
    write_manifest(plan, shards, args.out)
    if args.verify:
        verify(sources, shards, args.out, args.short_side is None, args.threads)
    pictures = ", ".join(f"{len(source):,} {split}" for split, source in sources.items())
    keys = f"--config.data.name=records --config.data.path={args.out}"
    print(f"{args.out}: {pictures} pictures in {len(shards)} shards; {keys}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, write what is missing, and verify it if asked."""
    parser = Parser(__doc__)
    parser.add_argument("src", metavar="SRC")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--short_side", type=int, metavar="PIXELS", help="shrink larger pictures to this shorter side")
    parser.add_argument(
        "--quality", type=int, default=90, metavar="1-100", help="of shrunk pictures, as JPEG (default: 90)"
    )
    parser.add_argument("--splits", metavar="A,B", help="the splits; the first one defines the classes (default: all)")
    parser.add_argument("--shard_size", type=int, default=8192, metavar="N", help="approximate pictures per shard")
    parser.add_argument("--task", default="0/1", metavar="I/N", help="only do every N-th shard, starting at I")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--verify", action="store_true", help="read everything back and compare with SRC")
    args, rest = parser.parse_known_args(argv)
    args.task = parse_task(args.task)
    for name in ("short_side", "shard_size", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name}={getattr(args, name)}: must be at least 1")
    if not 1 <= args.quality <= 100:
        raise InputError(f"--quality={args.quality}: must be from 1 to 100")
    sources = open_splits(args.src, args.splits, override(Config(), parse_overrides(rest)))

    counts = {split: -(-len(source) // args.shard_size) for split, source in sources.items()}
    shards = [Shard(split, number, count) for split, count in counts.items() for number in range(count)]
    plan = {
        "format": FORMAT,
        "label_names": next(iter(sources.values())).label_names,
        "short_side": args.short_side,
        "jpeg": JPEG | {"quality": args.quality},
        "splits": {split: {"pictures": len(sources[split]), "shards": count} for split, count in counts.items()},
    }
    try:
        write(args, sources, shards, plan)
    except OSError as error:
        raise InputError(f"not finished: {error}; run the same command again to continue") from error


if __name__ == "__main__":
    run_command(main)
