"""Unreadable pictures: each is replaced and logged once; too many of them stop the run."""

from collections.abc import Mapping

from tqdm import tqdm

from vit_jax.errors import InputError

SHOWN = 20


class BadPictures:
    """The unreadable pictures that this process found in one split; at most a fraction `max_bad` is tolerated."""

    def __init__(self, number: int, max_bad: float):
        self.number, self.max_bad = number, max_bad
        self._reported: dict[int, str] = {}

    def report(self, found: Mapping[int, str]) -> None:
        """Log the pictures in `found` that are new.

        Raises:
            InputError: there are more in total than `max_bad` allows; the message lists them.
        """
        new = {index: reason for index, reason in sorted(found.items()) if index not in self._reported}
        self._reported |= new
        self.check(self._reported)
        for reason in new.values():
            tqdm.write(f"bad: {reason}")

    def check(self, found: Mapping[int, str]) -> None:
        """Raise an `InputError` if `found` alone is more than `max_bad` allows, or the whole split."""
        if len(found) <= self.max_bad * self.number and len(found) < self.number:
            return
        reasons = [reason for _, reason in sorted(found.items())]
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        raise InputError(
            f"{len(reasons)} of {self.number:,} pictures are bad, more than config.data.max_bad={self.max_bad} allows; "
            f"repair or remove: {'; '.join(reasons[:SHOWN])}{more}"
        )
