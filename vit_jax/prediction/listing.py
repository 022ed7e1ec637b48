"""The pictures that a command line asks for, listed as they are needed: files, folders, patterns, lists of them."""

import contextlib
import fnmatch
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vit_jax.data.sources.folder import SUFFIXES
from vit_jax.errors import InputError


class Asked(NamedTuple):
    """A picture that is asked for, or something that can't be listed and why."""

    path: str
    error: str | None = None


def list_pictures(asked: Iterable[str | os.PathLike]) -> Iterator[Asked]:
    """Return the pictures that are asked for, in order; memory holds the names in one folder at a time.

    Args:
        asked: each a file, which may be missing; a folder, whose pictures are listed by path as those of a data
            folder: no names that start with a dot, and links to folders only in the folder itself; a pattern, in which
            `**` is any number of folders; "@FILE" or "-", a list of these with one on each line of a file or of the
            standard input.

    Raises:
        InputError: a list can't be read, or a folder or pattern that is no line of a list has no pictures.
    """
    asked = [os.fspath(each) for each in asked]
    for each in asked:
        if not _is_list(each):
            _check(each)
        elif each != "-" and not os.path.isfile(each[1:]):
            raise InputError(f"{each}: there is no list {each[1:]!r}")
    return _listed(asked)


def _listed(asked: list[str]) -> Iterator[Asked]:
    for each in asked:
        if _is_list(each):
            for line in _lines(each):
                yield from _one(line)
        else:
            yield from _one(each)


def _is_list(each: str) -> bool:
    return each == "-" or (each.startswith("@") and not os.path.lexists(each))


def _lines(each: str) -> Iterator[str]:
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if each == "-" else open(each[1:], "rb") as file:
            for line in file:
                if path := line.rstrip(b"\r\n"):
                    yield os.fsdecode(path)
    except OSError as error:
        raise InputError(f"{each}: the list can't be read: {error.strerror}") from error


def _check(each: str) -> None:
    first = next(_one(each), None)
    if first is not None and first.error is not None:
        raise InputError(f"{each}: {first.error}")


def _one(each: str) -> Iterator[Asked]:
    """Yield what one file, folder or pattern stands for: at least one thing."""
    if os.path.isdir(each):
        found = _walk(each)
    elif glob.has_magic(each) and not os.path.lexists(each):
        found = _matches(each)
    else:
        found = iter([Asked(each)])
    first = next(found, None)
    yield Asked(each, "has no pictures") if first is None else first
    yield from found


def _walk(folder: str, follow: bool = True) -> Iterator[Asked]:
    """Yield the pictures below a folder in the order of their paths; `follow` links to folders in the folder itself."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name + "/" * is_folder
                for entry in entries
                if not entry.name.startswith(".")
                if (is_folder := entry.is_dir(follow_symlinks=follow)) or _is_picture(entry.name)
            ]
    except OSError as error:
        yield Asked(folder, f"can't be listed: {error.strerror}")
        return
    for name in sorted(names):
        path = os.path.join(folder, name)
        if name.endswith("/"):
            yield from _walk(path[:-1], follow=False)
        else:
            yield Asked(path)


def _is_picture(name: str) -> bool:
    return os.fsencode(name).lower().endswith(SUFFIXES)


def _matches(pattern: str) -> Iterator[Asked]:
    """Yield what a pattern matches, folder by folder, each sorted; a folder that it matches stands for its pictures."""
    drive = Path(pattern).anchor
    for match in _expand(drive, pattern[len(drive) :].split("/")):
        yield from _walk(match.path) if match.error is None and os.path.isdir(match.path) else iter([match])


def _expand(folder: str, parts: list[str]) -> Iterator[Asked]:
    part, *rest = parts
    if part == "**" and not rest:
        yield Asked(folder or ".")
        return
    names = [part] if os.path.lexists(os.path.join(folder, part)) else []
    if glob.has_magic(part):
        try:
            names = sorted(name for name in os.listdir(folder or ".") if not name.startswith("."))
        except OSError as error:
            yield Asked(folder, f"can't be listed: {error.strerror}")
            return
    if part == "**":
        yield from _expand(folder, rest)
        rest = parts
    elif glob.has_magic(part):
        names = fnmatch.filter(names, part)
    for path in (os.path.join(folder, name) for name in names):
        if not rest:
            yield Asked(path)
        elif os.path.isdir(path) and not (part == "**" and os.path.islink(path)):
            yield from _expand(path, rest)
