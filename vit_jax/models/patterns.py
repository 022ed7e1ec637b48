"""Which patches attend to which: what `Model.attention_pattern` says."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from vit_jax.errors import InputError

Grid = tuple[int, int]


class Pattern(NamedTuple):
    """Which patches a patch attends to; class token and registers attend, and are attended to, by all.

    "axial": those of its row in even blocks, of its column in odd ones (Ho et al., 2019); "axial:both": both in every
    block (Huang et al., 2019). "local:R": those at most R rows and R columns away (Ramachandran et al., 2019).
    "blocks:K": those of its window of K x K; in odd blocks windows begin K // 2 rows and columns later (Liu et al.,
    2021). "strided:S": those less than S places away and every S-th one; "fixed:S": those of its S consecutive ones,
    and the last one of every S (Child et al., 2019, with c = 1; there with an order in time). A picture's patches have
    places row by row.

    Attributes:
        kind: the word before the colon.
        number: what comes after it; 0 if it is no number.
        both: whether it is "both".
    """

    kind: str
    number: int = 0
    both: bool = False

    @property
    def period(self) -> int:
        """The number of blocks after which the pattern repeats."""
        return 2 if self.kind == "blocks" or (self.kind == "axial" and not self.both) else 1

    def check(self, grid: Grid) -> None:
        """Raise an `InputError` if a window or a stride does not fit (rows, columns) of patches."""
        rows, columns = grid
        if self.kind == "blocks" and self.number > min(grid):
            raise InputError(
                f"model.attention_pattern='blocks:{self.number}': the window doesn't fit {rows}x{columns} patches"
            )
        if self.kind in ("strided", "fixed") and self.number > rows * columns:
            raise InputError(
                f"model.attention_pattern='{self.kind}:{self.number}': there are only {rows * columns} patches"
            )


def parse_pattern(text: str) -> Pattern:
    """Return the pattern that a valid `Model.attention_pattern` names."""
    kind, _, rest = text.partition(":")
    return Pattern(kind, int(rest) if rest.isdecimal() else 0, rest == "both")


def seen_by(pattern: Pattern, grid: Grid, prefix: int, block: int) -> Bool[np.ndarray, "tokens tokens"]:
    """Return whether each token (first axis) attends to each (second), by the definition of the pattern."""
    row, column = (axis.reshape(-1) for axis in np.mgrid[: grid[0], : grid[1]])
    place, number = np.arange(len(row)), pattern.number

    def distance(x: np.ndarray) -> np.ndarray:
        return np.abs(x[:, None] - x)

    def same(*places: np.ndarray) -> np.ndarray:
        return np.all([distance(x) == 0 for x in places], axis=0)

    if pattern.kind == "axial":
        seen = same(row) | same(column) if pattern.both else same(column if block % 2 else row)
    elif pattern.kind == "blocks":
        shift = -(number // 2) % number * (block % 2)
        seen = same((row + shift) // number, (column + shift) // number)
    elif pattern.kind == "local":
        seen = np.maximum(distance(row), distance(column)) <= number
    elif pattern.kind == "strided":
        seen = (distance(place) < number) | same(place % number)
    elif pattern.kind == "fixed":
        seen = same(place // number) | (place % number == number - 1)
    else:
        seen = np.ones((len(row), len(row)), bool)
    return np.pad(seen, ((prefix, 0), (prefix, 0)), constant_values=True)
