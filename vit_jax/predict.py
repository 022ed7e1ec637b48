"""Classify pictures: `python -m vit_jax.predict --model=WHERE PICTURES...`, see docs/predict.md.

PICTURES are files, folders, patterns such as 'photos/**/*.jpg' (in quotes), @FILE or - for a list in a file or on the
standard input. Exit code 3: some of them can't be read, all others are done.
"""

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from vit_jax.errors import BAD_PICTURES, InputError, Parser, Stop, run_command
from vit_jax.prediction.features import writing_features
from vit_jax.prediction.forward import Row, Wanted, predictions
from vit_jax.prediction.listing import list_pictures
from vit_jax.prediction.overlays import writing_overlays
from vit_jax.prediction.tables import Write, show_rows, writing_table
from vit_jax.runtime import set_up
from vit_jax.weights.opened import open_model

NAMED = 5  # bad pictures in the summary


def predict(
    where: str | os.PathLike,
    pictures: Iterable[str | os.PathLike],
    top: int = 5,
    checkpoint: str = "newest",
    *,
    labels: str | os.PathLike | None = None,
    templates: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: Literal["crop", "pad", "stretch", "native"] | None = None,
    flip: bool = False,
    batch: int = 64,
    threads: int = 8,
) -> Iterator[Row]:
    """Yield a row for each picture, in order: its path, its `top` most probable classes, and why it can't be read.

    Args:
        where: a run directory, or anything else that `vit_jax.load` takes.
        checkpoint: as for `vit_jax.weights.opened.open_model`.
        labels: as for `vit_jax.weights.opened.open_model`.
        templates: as for `vit_jax.weights.opened.open_model`.
        image_size: as for `vit_jax.weights.opened.open_model`.
        resize: as for `vit_jax.weights.opened.open_model`.
        pictures: files, folders and patterns, as for `vit_jax.prediction.listing.list_pictures`.
        flip: average the probabilities of a picture and its mirror image.
        batch: pictures at a time on each device.
        threads: that decode.

    Raises:
        InputError: there is no such model, or a folder or pattern has no pictures.
    """
    asked = list_pictures(pictures)
    names = {"labels": labels, "templates": templates}
    opened = open_model(where, checkpoint=checkpoint, **names, image_size=image_size, resize=resize)
    found = predictions(opened, asked, Wanted(top=top, flip=flip), batch, threads)
    return itertools.chain.from_iterable(each.rows for each in found)


def main(argv: list[str] | None = None) -> None:
    """Read the command line, predict, and write what is asked for."""
    args = _parse(argv)
    set_up()
    asked = list_pictures(args.pictures)
    shown = not (args.out or args.features)
    number, named, unread = 0, [], 0
    with contextlib.ExitStack() as stack:
        # Opened first: what can't be written is found before any work.
        outputs: list[Write] = [show_rows] if shown else []
        outputs += [stack.enter_context(writing_table(args.out))] if args.out else []
        outputs += [stack.enter_context(writing_features(args.features))] if args.features else []
        outputs += [writing_overlays(args.attention)] if args.attention else []
        sizes = {"image_size": args.image_size, "resize": args.resize}
        names = {"labels": args.labels, "templates": args.template}
        opened = open_model(args.model, checkpoint=args.checkpoint, **names, **sizes)
        layer = (args.layer or "pooled") if args.features else None
        wanted = Wanted(args.top, layer, attention=bool(args.attention), flip=args.tta == "flip")
        batches = predictions(opened, asked, wanted, args.batch, args.threads)
        print(opened.description(), file=sys.stderr, flush=True)
        # None: where the standard error is a terminal.
        bar = stack.enter_context(tqdm(unit=" pictures", disable=(shown and sys.stdout.isatty()) or None))
        start = time.perf_counter()
        for found in batches:
            for write in outputs:
                write(found)
            bad = [f"{row.path} ({row.error})" for row in found.rows if row.error is not None]
            number, unread, named = number + len(found.rows), unread + len(bad), [*named, *bad][:NAMED]
            bar.update(len(found.rows))
    seconds = time.perf_counter() - start
    print(f"{number:,} pictures in {seconds:.1f} s, {number / seconds:,.0f} a second", file=sys.stderr)
    if unread:
        more = f" and {unread - len(named):,} more" if unread > len(named) else ""
        raise Stop(BAD_PICTURES, f"{unread:,} of them can't be read: {', '.join(named)}{more}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="WHERE", help="weights: a path, https://, gs://, hf://, or a run directory")
    add("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    add(
        "--labels",
        metavar="FILE or A,B,...",
        help="names of the classes, in a file, one a line, or here;\nof a CLIP or SigLIP, texts to classify by",
    )
    add(
        "--template",
        action="append",
        metavar="TEXT",
        help="of these texts, such as 'a photo of a {}.'; several are averaged (default: {})",
    )
    add("--image_size", type=_image_size, metavar="N or H,W", help="pixels (default: the weights' own)")
    fits = ["crop", "pad", "stretch", "native"]
    add("--resize", choices=fits, help="how pictures are fitted to it (default: the weights' own)")
    add("--top", type=_count, default=5, metavar="N", help="classes of each picture (default: 5)")
    add("--tta", choices=["flip"], help="average the probabilities of a picture and its mirror image")
    add("--out", type=Path, metavar="FILE", help="a table: .csv, .jsonl or .parquet (default: to the terminal)")
    add("--features", type=Path, metavar="FILE", help="what the head reads, for each picture: .npz or .parquet")
    add("--layer", metavar="NAME", help="another activation as features; of several tokens, the mean over patches")
    add("--attention", type=Path, metavar="DIR", help="each picture beside its attention rollout, as PNG")
    add("--batch", type=_count, default=64, metavar="N", help="pictures at a time on each device (default: 64)")
    add("--threads", type=_count, default=8, metavar="N", help="that decode (default: 8)")
    add("pictures", nargs="+", metavar="PICTURES")
    args = parser.parse_args(argv)
    if args.layer and not args.features:
        raise InputError(f"--layer={args.layer}: says what --features=FILE is to hold, which is missing")
    return args


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _image_size(text: str) -> int | tuple[int, int]:
    numbers = tuple(_count(part) for part in text.split(","))
    if len(numbers) > 2:
        raise argparse.ArgumentTypeError("more than height and width")
    return numbers[0] if len(numbers) == 1 else numbers


if __name__ == "__main__":
    run_command(main)
