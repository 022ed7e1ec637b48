"""Pictures in one folder per class, or in none; the listing is cached, so that a million files are listed only once."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.cache import read_cached, write_cached
from vit_jax.config import Config
from vit_jax.data.sources.source import Record
from vit_jax.errors import InputError

SUFFIXES = (b".jpg", b".jpeg", b".png", b".webp", b".bmp", b".gif")
# Folders that are no classes.
SPLITS = {"val", "validation", "valid", "test"}
SETTLED = 2.0  # seconds: the coarsest modification times of file systems


class Listing(NamedTuple):
    """The pictures in a folder by class, as arrays, which take far less memory than a million paths.

    Attributes:
        classes: uint8, sorted names of the class folders, each ending in a zero byte; some may have no pictures. If
            there are none, the pictures are those in the folder itself.
        counts: int64, number of pictures per class.
        names: uint8, paths relative to the folder, each ending in a zero byte.
        folders: uint8, every folder that was listed, in the same format; the parent of the class folders first.
        times: int64, modification times of `folders`, in nanoseconds.
    """

    classes: np.ndarray
    counts: np.ndarray
    names: np.ndarray
    folders: np.ndarray
    times: np.ndarray


class FolderSource:
    """The pictures of a listing; labels are indices into `label_names`, and no column if there are no classes."""

    def __init__(self, folder: Path, listing: Listing, label_names: tuple[str, ...]):
        self.folder, self.label_names = folder, label_names
        self._names = listing.names
        self._ends = np.flatnonzero(listing.names == 0)
        if len(listing.counts):
            number = {name: label for label, name in enumerate(label_names)}
            labels = np.array([number[name] for name in _split(listing.classes)], np.int32)
            self.columns, self.labels, self.lacks = ("label",), np.repeat(labels, listing.counts), {}
        else:
            self.columns, self.labels = (), np.zeros(len(self._ends), np.int32)
            self.lacks = {"label": f"the pictures in {str(folder)!r} lie in no class folder"}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        start = self._ends[index - 1] + 1 if index else 0
        name = os.fsdecode(self._names[start : self._ends[index]].tobytes())
        return Record(self.folder / name, {key: int(self.labels[index]) for key in self.columns}, name)


def open_folder(config: Config, where: str, split: str, label_names: tuple[str, ...] | None) -> FolderSource:
    """Read `WHERE/SPLIT/<class>/**/*.jpg` (or .png etc.); the classes are the training split's folders, sorted.

    In a split without any folder, the pictures that lie in it have no label. Skips names that start with a dot, and
    links to folders inside a class folder.

    Raises:
        InputError: a folder is missing or has no pictures, or a class is not in the training split.
    """
    folder = _root(config, where) / split
    try:
        listing = list_pictures(folder, config.data.threads)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"data folder {str(folder)!r} does not exist; expected SPLIT/CLASS/*.jpg below config.data.path"
        ) from error
    except OSError as error:
        raise InputError(f"data folder {str(folder)!r} can't be listed: {error}") from error
    classes = _split(listing.classes)
    if label_names is not None and (unknown := set(classes).difference(label_names)):
        raise InputError(f"class folder {str(folder / min(unknown))!r} has no counterpart in the training split")
    if not len(listing.names):
        raise InputError(f"data folder {str(folder)!r} has no pictures; expected CLASS/*.jpg, *.png etc. in it")
    return FolderSource(folder, listing, label_names or classes)


def split_folders(config: Config, where: str) -> tuple[str, ...]:
    """Return the names of the folders in `WHERE`; none if they are the classes, because none is called train.

    Raises:
        InputError: it can't be listed, or has splits, but none to train on.
    """
    root = _root(config, where)
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"data folder {str(root)!r} can't be listed: {error.strerror}") from error
    if "train" in names:
        return tuple(names)
    if others := SPLITS.intersection(names):
        raise InputError(f"data folder {str(root)!r} has {min(others)!r}, but no 'train'; expected train/CLASS/*.jpg")
    return ()


def _root(config: Config, where: str) -> Path:
    where = config.data.path or where
    if not where:
        raise InputError("config.data.path is not set; give the folder with the pictures: --config.data.path=DIR")
    return Path(where).expanduser()


def list_pictures(folder: Path, threads: int) -> Listing:
    """List the pictures in a folder, or read the listing from `$VIT_JAX_CACHE` if no folder has changed since.

    Adding, removing or renaming something changes a folder's modification time, so checking every folder is enough.
    """
    kept = read_cached("listings", str(folder.absolute()))
    if kept is not None and kept.keys() == set(Listing._fields) and _current(folder, listing := Listing(**kept)):
        return listing
    start = time.time()
    listing = _scan(folder, threads)
    # A folder changed just now may change again without getting a new time.
    if listing.times.max() < (start - SETTLED) * 1e9:
        write_cached("listings", str(folder.absolute()), **listing._asdict())
    return listing


def _scan(folder: Path, threads: int) -> Listing:
    root = os.fsencode(folder)
    time_of_root = os.stat(root).st_mtime_ns
    with os.scandir(root) as entries:
        seen = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(b"."))
    classes = [name for name, is_folder in seen if is_folder]
    unlabelled = [] if classes else [name for name, _ in seen if name.lower().endswith(SUFFIXES)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda name: _scan_class(root, name), classes))
    folders = [b"", *(path for _, _, listed in found for path, _ in listed)]
    times = [time_of_root, *(changed for _, _, listed in found for _, changed in listed)]
    return Listing(
        classes=_join(classes),
        counts=np.array([count for count, _, _ in found], np.int64),
        names=np.concatenate([_join(unlabelled), *(names for _, names, _ in found)]),
        folders=_join(folders),
        times=np.array(times, np.int64),
    )


def _scan_class(root: bytes, name: bytes) -> tuple[int, np.ndarray, list[tuple[bytes, int]]]:
    pictures, listed, waiting = [], [], [name]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        listed.append((folder, os.stat(path).st_mtime_ns))
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(folder + b"/" + entry.name)
                elif entry.name.lower().endswith(SUFFIXES):
                    pictures.append(folder + b"/" + entry.name)
    pictures.sort()
    return len(pictures), _join(pictures), listed


def _current(folder: Path, listing: Listing) -> bool:
    root = os.fsencode(folder)
    folders = listing.folders.tobytes().split(b"\0")[:-1]
    try:
        return all(
            os.stat(os.path.join(root, name)).st_mtime_ns == changed
            for name, changed in zip(folders, listing.times.tolist(), strict=True)
        )
    except OSError:
        return False


def _join(names: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(name + b"\0" for name in names), np.uint8)


def _split(names: np.ndarray) -> tuple[str, ...]:
    return tuple(os.fsdecode(name) for name in names.tobytes().split(b"\0")[:-1])
