"""The cache of what was made once: `$VIT_JAX_CACHE`, or `~/.cache/vit_jax`."""

import contextlib
import hashlib
import os
import socket
import zipfile
from pathlib import Path

import jax
import numpy as np


def cache_folder() -> Path:
    """Return the folder of what is kept between runs; it need not be there."""
    return Path(os.environ.get("VIT_JAX_CACHE") or os.path.expanduser("~/.cache/vit_jax"))


def keep_compiled() -> None:
    """Keep compiled programs in that folder, unless `JAX_COMPILATION_CACHE_DIR` names another or, empty, none.

    On several hosts one process writes, so that all find them where the folder is shared.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


def _path(kind: str, key: str) -> Path:
    return cache_folder() / kind / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")


def read_cached(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays kept under a key, or None if there are none that can be read."""
    try:
        with _path(kind, key).open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def write_cached(kind: str, key: str, **arrays: np.ndarray) -> None:
    """Keep arrays under a key; where nothing can be written, nothing is kept and all else works."""
    path = _path(kind, key)
    partial = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
