"""Look inside a model: `python scripts/inside.py WEIGHTS [PICTURES...] --out=DIR`, see docs/studies/inside.md.

WEIGHTS are a path, https://, gs://, hf:// or a run directory; PICTURES as for `vit_jax.predict`. Exit code 3: some
pictures can't be read, all others are done.

    filters.png      principal filters of the patch embedding, or of a ResNet's root
    positions.png    similarity of position embeddings, or the relative bias of each head
    distance.png     how far each head attends in PICTURES, and distance.csv
    rollout.png      the first of PICTURES beside their attention rollout
    inside.json, inside.npz     the numbers behind them
"""

import argparse
import csv
import functools
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from inside_figures import paint_bias, paint_distance, paint_filters, paint_positions, paint_rollout
from tqdm import tqdm

from vit_jax.config.coerce import literal
from vit_jax.errors import BAD_PICTURES, InputError, Parser, Stop, run_command
from vit_jax.evaluators.figure import figure
from vit_jax.inside.distance import patch_distances
from vit_jax.inside.filters import first_kernel, principal_components
from vit_jax.inside.positions import position_similarity, relative_bias, similarity_by_place
from vit_jax.models import BiT, ViT
from vit_jax.prediction.forward import Row, Wanted, predictions
from vit_jax.prediction.listing import Asked, list_pictures
from vit_jax.prediction.overlays import draw
from vit_jax.runtime import set_up
from vit_jax.weights.files import replacing, write_npz
from vit_jax.weights.opened import Opened, open_model

PARTS = ("filters", "positions", "distance", "rollout")
OF_PICTURES = PARTS[2:]
NAMED = 5  # bad pictures in the summary


class Found(NamedTuple):
    """One part: a line for people, JSON's values, arrays, and functions that draw its PNG files."""

    line: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    figures: dict[str, Callable[[], bytes]]


class Seen(NamedTuple):
    """What attention does in pictures: the distances of each, the first ones drawn, and those that can't be read."""

    distances: list[np.ndarray]
    drawn: list[tuple[Row, np.ndarray]]
    unread: list[Row]


def lacking(opened: Opened, pictures: list[str]) -> dict[str, str]:
    """Return {part: why there is none}."""
    name, position = repr(opened.config.model.name), opened.config.model.position
    if not isinstance(opened.model, ViT):
        bit = isinstance(opened.model, BiT)
        why = "is a ResNet, which has no attention" if bit else "attends within windows alone"
        no_positions = "is a ResNet, which has no position embeddings" if bit else "has no positions, but biases"
        return {"positions": f"{name} {no_positions}"} | dict.fromkeys(OF_PICTURES, f"{name} {why}")
    reasons = {"positions": f"{name} has no position embeddings"} if position == "none" else {}
    return reasons if pictures else reasons | dict.fromkeys(OF_PICTURES, "needs PICTURES, and none are given")


def find_filters(opened: Opened) -> Found:
    """Return the principal filters of what meets the pixels."""
    kind, kernel = first_kernel(opened.model)
    found = principal_components(kernel)
    number = len(found.shares)
    line = f"{number} principal components hold {found.shares.sum():.1%} of the variance of the {kind}'s filters"
    facts = {"of": kind, "kernel": list(kernel.shape), "shares": plain(found.shares)}
    paint = functools.partial(paint_filters, opened.config.model.name, kind, kernel.shape[-1], found)
    size = (8.18, 1.32 * -(-number // 7) + 0.8)
    return Found(line, facts, {"filters": found.filters}, figure("filters.png", size, paint))


def find_positions(opened: Opened) -> Found:
    """Return which position embeddings are alike, or the relative bias."""
    name, kind = opened.config.model.name, opened.config.model.position
    if kind == "relative":
        bias = relative_bias(opened.model)
        line = f"the relative bias is from {bias.min():.2f} to {bias.max():.2f}"
        facts = {"kind": kind, "least": float(bias.min()), "greatest": float(bias.max())}
        layers, heads, rows, columns = bias.shape
        size = (8.18, 6.4 * layers * rows / (heads * columns) + 1.4)
        return Found(
            line, facts, {"bias": bias}, figure("positions.png", size, functools.partial(paint_bias, name, bias))
        )
    similarity = position_similarity(opened.model)
    _, rows, columns, *_ = similarity.shape
    drawn = {}
    for i, each in enumerate(similarity):
        own, title = (f"_{i}", f"{kind}, of block {i}") if len(similarity) > 1 else ("", kind)
        paint = functools.partial(paint_positions, f"{name}, {title}", each)
        drawn |= figure(f"positions{own}.png", (8.18, 6.6 * (rows / columns) ** 2 + 1), paint)
    means = {place: plain(values) for place, values in similarity_by_place(similarity).items()}
    listed = ", ".join(f"{place} {np.mean(values):.3f}" for place, values in means.items())
    line = f"mean similarity of {kind} positions: {listed or 'there is one patch'}"
    return Found(line, {"kind": kind, "mean similarity": means}, {"similarity": similarity}, drawn)


def look(opened: Opened, asked: Iterator[Asked], parts: list[str], batch: int, shown: int) -> Seen:
    """Return what attention does in pictures; holds `shown` of them at most."""
    seen = Seen([], [], [])
    wanted = Wanted(top=1, attention="rollout" in parts, distance="distance" in parts)
    with tqdm(unit=" pictures", disable=None) as bar:
        for found in predictions(opened, asked, wanted, batch):
            for i, row in enumerate(found.rows):
                if row.error is not None:
                    seen.unread.append(row)
                    continue
                if wanted.distance:
                    seen.distances.append(found.distances[i])
                if wanted.attention and len(seen.drawn) < shown:
                    seen.drawn.append((row, draw(found.images[i], found.attention[i])))
            bar.update(len(found.rows))
    return seen


def find_distance(opened: Opened, distances: list[np.ndarray]) -> Found:
    """Return how far each head attends: the mean over pictures, and their standard deviation."""
    each, (height, width) = np.array(distances, np.float64), opened.config.height_width()
    mean, std = each.mean(axis=0), each.std(axis=0)
    uniform = float(patch_distances(opened.model.grid((height, width)), opened.config.model.patch).mean())
    line = f"heads attend {np.nanmin(mean):.1f} to {np.nanmax(mean):.1f} pixels far; uniform attention, {uniform:.1f}"
    facts = {"pictures": len(each), "unit": "pixels", "uniform": uniform, "mean": plain(mean), "std": plain(std)}
    title = f"{opened.config.model.name}, {len(each):,} pictures of {height}x{width} pixels"
    paint = functools.partial(paint_distance, title, mean, uniform)
    return Found(line, facts, {"distance": mean, "distance_std": std}, figure("distance.png", (8.18, 4.4), paint))


def find_rollout(opened: Opened, drawn: list[tuple[Row, np.ndarray]]) -> Found:
    """Return pictures beside their attention rollout."""
    height, width = drawn[0][1].shape[:2]
    paint = functools.partial(paint_rollout, opened.config.model.name, drawn)
    size = (8.18, -(-len(drawn) // 3) * (2.6 * height / width + 0.3) + 0.8)
    facts = {"pictures": [row.path for row, _ in drawn]}
    return Found(f"attention rollout on {len(drawn)} pictures", facts, {}, figure("rollout.png", size, paint))


def plain(values: np.ndarray) -> list:
    """Return numbers as JSON has them: six digits, which are what a float32 holds for certain, and null for NaN."""
    if np.ndim(values):
        return [plain(each) for each in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None


def write(out: Path, found: dict[str, Found], facts: dict[str, Any]) -> None:
    """Write figures, then the numbers behind them, and print a line for each part.

    Raises:
        InputError: the folder can't be written.
    """
    for part, each in found.items():
        for name, drawn in each.figures.items():
            with replacing(out / name) as path:
                path.write_bytes(drawn())
        print(f"{', '.join(each.figures)}: {each.line}")
        facts[part] = each.facts | {"files": list(each.figures)}
    if "distance" in found:
        arrays = found["distance"].arrays
        with replacing(out / "distance.csv") as path, path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["block", "head", "pixels", "std"])
            for (block, head), mean in np.ndenumerate(arrays["distance"]):
                writer.writerow([block, head, f"{mean:.6g}", f"{arrays['distance_std'][block, head]:.6g}"])
    if arrays := {name: array for each in found.values() for name, array in each.arrays.items()}:
        write_npz(out / "inside.npz", {name: array.astype(np.float32) for name, array in arrays.items()})
    with replacing(out / "inside.json") as path:
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, look, and write what is found."""
    args = _parse(argv)
    if find_spec("matplotlib") is None:
        raise InputError("matplotlib, which draws the figures, isn't installed: pip install 'vit_jax[figures]'")
    set_up()
    asked = list_pictures(args.pictures)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={args.out}: can't be made: {error.strerror}") from error
    how = {"checkpoint": args.checkpoint, "image_size": args.image_size, "resize": args.resize}
    opened = open_model(args.weights, **how, **dict(args.set))
    parts, skipped = args.only or list(PARTS), lacking(opened, args.pictures)
    skipped = {part: reason for part, reason in skipped.items() if part in parts}
    if args.only and skipped:
        raise InputError("; ".join(f"--only={part}: {reason}" for part, reason in skipped.items()))
    parts = [part for part in parts if part not in skipped]
    print(opened.description(), file=sys.stderr, flush=True)

    finders = {"filters": find_filters, "positions": find_positions}
    found = {part: find(opened) for part, find in finders.items() if part in parts}
    seen = look(opened, asked, parts, args.batch, args.shown) if set(parts) & set(OF_PICTURES) else Seen([], [], [])
    if seen.distances:
        found["distance"] = find_distance(opened, seen.distances)
    if seen.drawn:
        found["rollout"] = find_rollout(opened, seen.drawn)
    skipped |= {part: "none of the pictures can be read" for part in parts if part not in found}
    unread = [{"path": row.path, "error": row.error} for row in seen.unread]
    facts = {"weights": args.weights, "model": opened.config.model.name, "image_size": opened.config.height_width()}
    write(args.out, found, facts | {"skipped": skipped, "unread": unread})
    for part, reason in skipped.items():
        print(f"{part}: skipped: {reason}")
    if unread:
        named = ", ".join(f"{each['path']} ({each['error']})" for each in unread[:NAMED])
        more = f" and {len(unread) - NAMED:,} more" if len(unread) > NAMED else ""
        raise Stop(BAD_PICTURES, f"{len(unread):,} of the pictures can't be read: {named}{more}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS")
    add("pictures", nargs="*", metavar="PICTURES")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for what is written")
    add("--only", type=_parts, metavar="PARTS", help=f"some of {','.join(PARTS)} (default: all there are)")
    add("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    add("--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="a field of the model's config")
    add("--image_size", type=_image_size, metavar="N or H,W", help="pixels (default: the weights' own)")
    add("--resize", choices=["crop", "pad", "stretch"], help="how pictures are fitted to it (default: likewise)")
    add("--shown", type=_count, default=12, metavar="N", help="pictures in rollout.png (default: 12)")
    add("--batch", type=_count, default=8, metavar="N", help="pictures at a time on each device (default: 8)")
    return parser.parse_intermixed_args(argv)


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; choose of {', '.join(PARTS)}")
    return parts


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _image_size(text: str) -> int | tuple[int, ...]:
    numbers = tuple(_count(part) for part in text.split(","))
    return numbers[0] if len(numbers) == 1 else numbers


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} must be KEY=VALUE")
    return key, literal(value)


if __name__ == "__main__":
    run_command(main)
