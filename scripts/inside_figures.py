"""The figures of scripts/inside.py, painted for a width of 900 pixels."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.evaluators.figure import caption
from vit_jax.inside.filters import Components
from vit_jax.prediction.forward import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

TILES = 16  # of the similarity of positions, in a row or column
BLUE, GRAY = "#1f5fa8", "0.45"


def paint_filters(name: str, kind: str, number: int, found: Components, figure: "Figure") -> None:
    """Draw principal filters as tiles, each scaled to its own greatest weight; zero is gray."""
    rows, columns, channels = found.filters.shape[1:]
    kept = f"first {len(found.shares)} principal components of the {number:,} filters of the {kind}"
    how = "" if channels == 3 else ", one channel" if channels == 1 else f", mean of {channels} channels"
    figure.suptitle(
        f"{name}: {kept}\n{rows}x{columns} pixels, each scaled to its greatest weight, zero is gray{how}; "
        "%: share of the variance",
        fontsize=11,
    )
    axes = figure.subplots(-(-len(found.shares) // 7), 7, squeeze=False)
    for ax in axes.flat[len(found.shares) :]:
        ax.axis("off")
    for ax, each, share in zip(axes.flat, found.filters, found.shares, strict=False):
        each = each if channels == 3 else np.broadcast_to(each.mean(axis=2, keepdims=True), (rows, columns, 3))
        greatest = np.abs(each).max()
        ax.imshow(0.5 + each / (2 * greatest if greatest > 0 else 1), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{share:.1%}", fontsize=8, pad=2)
        for spine in ax.spines.values():
            spine.set(color=GRAY, linewidth=0.5)


def paint_positions(title: str, similarity: Float[np.ndarray, "rows columns rows columns"], figure: "Figure") -> None:
    """Draw the similarity of every patch's position with all others, a tile for each patch."""
    rows, columns = similarity.shape[:2]
    step = -(-max(rows, columns) // TILES)
    axes = figure.subplots()
    which = "each patch" if step == 1 else f"each {step}th patch in row and column"
    axes.set_title(f"{title}: cosine similarity of position embeddings\na tile for {which}, with all patches in it")
    image = _tiled(axes, similarity[::step, ::step], "viridis", similarity.min(), 1, step)
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
    figure.colorbar(image, ax=axes, label="cosine similarity", shrink=0.8)


def paint_bias(name: str, bias: Float[np.ndarray, "layers heads offset_rows offset_columns"], figure: "Figure") -> None:
    """Draw the relative bias, a tile for each head, a row of tiles for each block where they have their own."""
    layers, _, rows, columns = bias.shape
    axes = figure.subplots()
    axes.set_title(
        f"{name}: relative bias of attention scores, by the offset of key from query\n"
        f"from -{rows // 2} to {rows // 2} rows down and -{columns // 2} to {columns // 2} columns right; middle: 0",
        fontsize=11,
    )
    greatest = max(np.abs(bias).max(), 1e-12)
    image = _tiled(axes, bias, "RdBu_r", -greatest, greatest)
    axes.set(xlabel="head", ylabel="block" if layers > 1 else "all blocks")
    if layers == 1:
        axes.set_yticks([])
    figure.colorbar(image, ax=axes, label="added to the score", shrink=0.8)


def paint_distance(title: str, mean: Float[np.ndarray, "depth heads"], uniform: float, figure: "Figure") -> None:
    """Draw the attention distance of every head over depth."""
    axes, (depth, heads) = figure.subplots(), mean.shape
    blocks, top = np.arange(depth), np.nanmax([mean.max(), uniform, 1e-3])
    axes.scatter(np.repeat(blocks, heads), mean.ravel(), s=22, color=BLUE, alpha=0.75, label=f"each of {heads} heads")
    axes.plot(blocks, mean.mean(axis=1), color=BLUE, lw=1, label="their mean")
    axes.axhline(uniform, color=GRAY, ls="--", lw=1, label="if attention were uniform")
    axes.set_title(f"{title}\nhow far heads attend; class token and registers left out")
    axes.set(xlabel="block (0 is the first)", ylabel="mean attention distance (pixels)", ylim=(0, 1.05 * top))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="best")


def paint_rollout(name: str, drawn: list[tuple[Row, UInt8[np.ndarray, "_ _ 3"]]], figure: "Figure") -> None:
    """Draw pictures beside their attention rollout, with what the model takes them for."""
    figure.suptitle(
        f"{name}: pictures as the model sees them, and attention rollout (bright: more)\n"
        "below, the most probable class and its probability",
        fontsize=11,
    )
    axes = figure.subplots(-(-len(drawn) // 3), 3, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (row, image) in zip(axes.flat, drawn, strict=False):
        ax.imshow(image)
        (label, probability) = row.classes[0]
        ax.text(0.5, -0.03, f"{caption(label)} {probability:.2f}", ha="center", va="top", transform=ax.transAxes)


def _tiled(
    axes: "Axes",
    tiles: Float[np.ndarray, "down across rows columns"],
    colors: str,
    least: float,
    greatest: float,
    step: int = 1,
) -> "AxesImage":
    """Draw tiles with white lines between them, numbered in steps."""
    down, across, rows, columns = tiles.shape
    gap = max(1, round(0.08 * columns))
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    canvas = padded.swapaxes(1, 2).reshape(down * (rows + gap), -1)[:-gap, :-gap]
    image = axes.imshow(canvas, cmap=colors, vmin=least, vmax=greatest, interpolation="nearest")
    axes.set_xticks((columns + gap) * np.arange(across) + (columns - 1) / 2, step * np.arange(across))
    axes.set_yticks((rows + gap) * np.arange(down) + (rows - 1) / 2, step * np.arange(down))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
