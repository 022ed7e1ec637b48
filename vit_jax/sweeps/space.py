"""What a sweep varies: grids of values, and distributions that values are drawn from, as written on a command line."""

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError

Overrides = dict[str, str]

_CALL = re.compile(r"(log|uniform|int)\((.*)\)")
_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(\d+))?")
DIGITS = 4  # Significant, of a number that is drawn: enough to tell two apart, and short in a name.


class Distribution(NamedTuple):
    """Where the values of a key come from.

    Attributes:
        kind: "log" or "uniform" between two numbers, "int" from the first to the last, or "choice" of values.
        values: the two numbers, or the values as text.
    """

    kind: str
    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> str:
        """Return a value as text."""
        if self.kind == "choice":
            return self.values[rng.integers(len(self.values))]
        low, high = self.values
        if self.kind == "int":
            return str(rng.integers(low, high + 1))
        if self.kind == "log":
            return shortened(math.exp(rng.uniform(math.log(low), math.log(high))))
        return shortened(rng.uniform(low, high))


def shortened(number: float) -> str:
    """Return a number as text, with the significant digits that a name can hold."""
    return f"{float(f'{number:.{DIGITS}g}')!r}"


def parse_grid(items: list[str]) -> dict[str, list[str]]:
    """Return {key: values} for items such as "optim.lr=1e-3,3e-4", "seed=0:3" or "image_size=(32,48),64".

    Raises:
        InputError: an item has no key or no values, or a key is there twice.
    """
    return {key: _values(item, text) for item, key, text in _split("--grid", items)}


def parse_space(option: str, items: list[str]) -> dict[str, Distribution]:
    """Return {key: distribution} for items such as "optim.lr=log(1e-5,1e-2)", "model.depth=int(4,12)" or "seed=0:3".

    Args:
        option: that the items belong to, for messages.

    Raises:
        InputError: an item is no distribution, or a key is there twice.
    """
    return {key: _distribution(option, item, text) for item, key, text in _split(option, items)}


def grid(values: dict[str, list[str]]) -> Iterator[Overrides]:
    """Yield all combinations, the last key fastest."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def drawn(space: dict[str, Distribution], number: int, seed: int) -> Iterator[Overrides]:
    """Yield so many draws; draw i is the same whatever the number, so that a larger one adds to a smaller."""
    for i in range(number):
        rng = np.random.default_rng((seed, i))
        yield {key: distribution.draw(rng) for key, distribution in space.items()}


def _split(option: str, items: list[str]) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key or not text:
            raise InputError(f"{option} {item!r}: write KEY=VALUES, such as 'optim.lr=1e-3,3e-4'")
        if key in seen:
            raise InputError(f"{option} {item!r}: {key} is there twice; give all its values at once")
        seen.add(key)
        yield item, key.removeprefix("config."), text


def _values(item: str, text: str) -> list[str]:
    if match := _RANGE.fullmatch(text):
        first, end, step = int(match[1]), int(match[2]), int(match[3] or 1)
        values = [str(number) for number in range(first, end, step or 1)]
    else:
        values = list(_at_commas(text))
    if not values or not all(values):
        raise InputError(f"{item!r} has {'an empty value' if values else 'no values'}; a range excludes its end")
    return values


def _distribution(option: str, item: str, text: str) -> Distribution:
    match = _CALL.fullmatch(text)
    if match is None:
        return Distribution("choice", tuple(_values(item, text)))
    kind, numbers = match[1], [literal(part.strip()) for part in match[2].split(",")]
    wanted = int if kind == "int" else (int, float)
    if len(numbers) != 2 or not all(isinstance(x, wanted) and math.isfinite(x) for x in numbers):
        raise InputError(
            f"{option} {item!r}: {kind} needs two {'whole ' * (kind == 'int')}numbers, such as {_LIKE[kind]}"
        )
    low, high = numbers
    if low >= high or (kind == "log" and low <= 0):
        positive = " above 0" if kind == "log" else ""
        raise InputError(
            f"{option} {item!r}: the first number must be below the second{positive and ', both' + positive}"
        )
    return Distribution(kind, (low, high))


_LIKE = {"log": "log(1e-5,1e-2)", "uniform": "uniform(0,0.3)", "int": "int(4,12)"}


def _at_commas(text: str) -> Iterator[str]:
    # Not at those within brackets or quotes: "(32,48),64" has two values.
    depth, quote, start = 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            yield text[start:i].strip()
            start = i + 1
    yield text[start:].strip()
