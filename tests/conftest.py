"""Eight simulated CPU devices, each program compiled once, and every shape annotation checked while the tests run."""

import atexit
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

# Most of the time of these tests is compilation: commands and tests of one session share what is compiled.
_cache = tempfile.mkdtemp(prefix="vit_jax_tests_")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from jaxtyping import install_import_hook

install_import_hook("vit_jax", "beartype.beartype")
