"""The pictures in a tar file, read in place."""

import os
import tarfile
from collections.abc import Iterable

import numpy as np

from vit_jax.data.sources.folder import SUFFIXES
from vit_jax.data.sources.source import Record, Source
from vit_jax.errors import InputError


class TarSource:
    """The pictures of one split of a tar file, by offset and size."""

    columns = ("label",)

    def __init__(self, tar: int, places: list[tuple[int, int]], labels: list[int], label_names: tuple[str, ...]):
        self.labels, self.label_names = np.array(labels, np.int32), label_names
        self._tar, self._places = tar, places

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        start, size = self._places[index]
        return Record(os.pread(self._tar, size, start), {"label": int(self.labels[index])}, str(index))


def open_tar(path: str) -> dict[str, Source]:
    """Return the splits of a tar file of SPLIT/CLASS/**/*.jpg, in the same order as from a folder."""
    places, links = {}, {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = os.path.normpath(member.name)
                if member.isreg():
                    places[name] = (member.offset_data, member.size)
                elif member.islnk():
                    links[name] = os.path.normpath(member.linkname)
    except tarfile.ReadError as error:
        raise InputError(f"tar {path!r} has no random access; if it is compressed, decompress it first") from error
    places |= {name: places[target] for name, target in links.items() if target in places}
    splits: dict[str, list[tuple[str, bytes, tuple[int, int]]]] = {}
    for name, place in places.items():
        split, *rest = name.split("/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        if len(rest) >= 2 and not hidden and os.fsencode(name).lower().endswith(SUFFIXES):
            splits.setdefault(split, []).append((rest[0], os.fsencode(name), place))
    if not splits:
        raise InputError(f"tar {path!r} has no pictures; expected SPLIT/CLASS/*.jpg in it")
    names = tuple(sorted({class_name for class_name, _, _ in splits[in_order(splits)[0]]}))
    number = {name: label for label, name in enumerate(names)}
    file = os.open(path, os.O_RDONLY)
    sources = {}
    for split in in_order(splits):
        pictures = sorted(splits[split])
        if unknown := {class_name for class_name, _, _ in pictures}.difference(names):
            raise InputError(f"tar {path!r}: class {split}/{min(unknown)} has no counterpart in the training split")
        labels = [number[class_name] for class_name, _, _ in pictures]
        sources[split] = TarSource(file, [place for _, _, place in pictures], labels, names)
    return sources


def in_order(splits: Iterable[str]) -> list[str]:
    """Return the splits, training first, because its classes are used for all."""
    return sorted(splits, key=lambda split: (split != "train", split))
