"""Ranges of config values: declared with each key, checked on construction, and printed in the reference."""

import math
import re
from typing import Annotated


class Range:
    """An interval such as "[0, 1)"; a parenthesis excludes its end, and non-finite values are never inside."""

    def __init__(self, text: str):
        opening, low, high, closing = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", text).groups()
        self.low, self.high, self._text = float(low), float(high), text
        self._has_low, self._has_high = opening == "[", closing == "]"

    def __contains__(self, value: int | float) -> bool:
        above = value >= self.low if self._has_low else value > self.low
        return above and (value <= self.high if self._has_high else value < self.high)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"in {self._text}"
        if self.low == -math.inf:
            return "that is finite"
        return f"at least {self.low:g}" if self._has_low else f"above {self.low:g}"


class Duration:
    """A number with a unit: "100st" steps, "90ep" epochs, "1_000ex" pictures, "5%" of the run.

    Args:
        zero: whether 0 is allowed.
        percent: whether a percentage is allowed, at most 100.
    """

    def __init__(self, *, zero: bool = False, percent: bool = True):
        self._zero, self._percent = zero, percent

    def __contains__(self, text: str) -> bool:
        match = _DURATION.fullmatch(text)
        if match is None or (match[2] == "%" and not self._percent):
            return False
        number = float(match[1])
        return (number > 0 or self._zero) and (match[2] != "%" or number <= 100)

    def __str__(self) -> str:
        units = ["100st (steps)", "90ep (epochs)", "1_000ex (pictures)", *["5%"] * self._percent]
        least = "" if self._zero else " above 0"
        return f"a duration{least}: {', '.join(units[:-1])} or {units[-1]}"


_DURATION = re.compile(r"(\d[\d_]*\.?\d*)(st|ep|ex|%)")


class Form:
    """Text that a regular expression matches, and how to say so."""

    def __init__(self, pattern: str, text: str):
        self._pattern, self._text = re.compile(pattern), text

    def __contains__(self, value: str) -> bool:
        return self._pattern.fullmatch(value) is not None

    def __str__(self) -> str:
        return self._text


def parse_duration(text: str) -> tuple[float, str]:
    """Split a duration such as "90ep" into (90.0, "ep")."""
    number, unit = _DURATION.fullmatch(text).groups()
    return float(number), unit


# Types shared by several keys.
Count = Annotated[int, Range("[1, inf)")]
Seed = Annotated[int, Range("[0, 4294967296)")]
Pixels = Annotated[int, Range("[1, 8192]")]
Rate = Annotated[float, Range("[0, 1)")]
Fraction = Annotated[float, Range("[0, 1]")]
Positive = Annotated[float, Range("(0, inf)")]
NonNegative = Annotated[float, Range("[0, inf)")]
Factor = Annotated[float, Range("[1, inf)")]
Finite = Annotated[float, Range("(-inf, inf)")]
