"""The cache on disk, shared by all runs: `$VIT_JAX_CACHE`, or `~/.cache/vit_jax`."""

import contextlib
import hashlib
import os
import socket
import zipfile
from pathlib import Path

import jax
import numpy as np


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet."""
    return Path(os.environ.get("VIT_JAX_CACHE") or os.path.expanduser("~/.cache/vit_jax"))


def keep_compiled() -> None:
    """Cache compiled programs, unless `JAX_COMPILATION_CACHE_DIR` is set, to another folder or empty for no cache.

    With several hosts only one process writes; the others find the programs if the folder is shared.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


def _path(kind: str, key: str) -> Path:
    return cache_folder() / kind / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")


def read_cached(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays cached under a key, or None if they are missing or unreadable."""
    try:
        with _path(kind, key).open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def write_cached(kind: str, key: str, **arrays: np.ndarray) -> None:
    """Cache arrays under a key; if they can't be written, do nothing."""
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
