"""How JAX and the C library are set up for a command, before JAX looks for devices."""

import contextlib
import ctypes
import gc
import os

import jax

from vit_jax.cache import cache_folder

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def set_up() -> None:
    """Cache compiled programs, keep the memory of one step on the CPU for the next, look for cycles less often."""
    keep_compiled()
    keep_memory()
    # Tracing makes many objects; to look for cycles as often as Python does took a tenth of the time of a
    # short run.
    gc.set_threshold(10_000, 50, 100)


def keep_compiled() -> None:
    """Cache compiled programs, unless `JAX_COMPILATION_CACHE_DIR` is set, to another folder or empty for no cache.

    With several hosts only one process writes; the others find the programs if the folder is shared.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


def keep_memory() -> None:
    """Make glibc keep what is freed, so that the temporary arrays of a step on the CPU are not new pages each time.

    Otherwise the kernel zeroes them anew, page by page: a fifth of the time of a small model. A program that JAX
    dispatches to a thread of its own is out of reach of the settings, so the CPU's programs run in the thread that
    calls them. On a host of accelerators, too, what the main thread frees stays with the process. Elsewhere than on
    Linux with glibc nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
