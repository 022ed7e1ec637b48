"""The cache on disk, shared by all runs: `$VIT_JAX_CACHE`, or `~/.cache/vit_jax`."""

import contextlib
import fcntl
import hashlib
import os
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet."""
    return Path(os.environ.get("VIT_JAX_CACHE") or os.path.expanduser("~/.cache/vit_jax"))


def compile_once(lowered: jax.stages.Lowered, say: Callable[[str], None]) -> jax.stages.Compiled:
    """Compile a program, or, if another process is compiling the same one, wait and take it from the compilation cache.

    It is cached however fast it compiles, since programs that are compiled at the same time as equal ones slow them
    down. Several processes of one run compile together, and don't wait.

    Args:
        say: prints that this process waits.
    """
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder or not jax.config.jax_enable_compilation_cache or jax.process_count() > 1:
        return lowered.compile()
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    key = hashlib.sha256(f"{jax.__version__} {devices} {lowered.as_text()}".encode()).hexdigest()[:32]
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    with _locked(Path(folder) / f"{key}.lock", lambda: say("waiting for another process that compiles this step")):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        try:
            return lowered.compile()
        finally:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@contextlib.contextmanager
def _locked(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    # Of flock, because the kernel takes it back from a process that was killed. Without it, nothing is lost but time.
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
