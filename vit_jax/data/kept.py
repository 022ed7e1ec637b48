"""What was found out about a data set once, kept in `$VIT_JAX_CACHE` or `~/.cache/vit_jax`."""

import contextlib
import hashlib
import os
import socket
import zipfile
from pathlib import Path

import numpy as np

from vit_jax.cache import cache_folder


def _place(kind: str, key: str) -> Path:
    return cache_folder() / kind / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")


def read_kept(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays kept under a key, or None if there are none that can be read."""
    try:
        with _place(kind, key).open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def keep(kind: str, key: str, **arrays: np.ndarray) -> None:
    """Keep arrays under a key; where nothing can be written, nothing is kept and all else works."""
    path = _place(kind, key)
    partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
