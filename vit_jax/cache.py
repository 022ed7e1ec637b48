"""What was made once and is not made again: `$VIT_JAX_CACHE`, or `~/.cache/vit_jax`."""

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Return the folder of what is kept between runs; it need not be there."""
    return Path(os.environ.get("VIT_JAX_CACHE") or os.path.expanduser("~/.cache/vit_jax"))


def keep_compiled() -> None:
    """Keep compiled programs in that folder, unless `JAX_COMPILATION_CACHE_DIR` names another or, empty, none.

    On several hosts one process writes, so that all find them where the folder is shared.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
