"""Eight simulated CPU devices, a compilation cache for the session, and shape annotations checked during the tests."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests.quick import FLAGS

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FLAGS}"
# Compiled programs are kept for the session, and shared by its workers.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="vit_jax_tests_")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from jaxtyping import install_import_hook

# Only where annotations have shapes: to wrap every function of the package took a fifth of the time of many tests.
ROOT = Path(__file__).parent.parent
_shaped = [path for path in ROOT.glob("vit_jax/**/*.py") if "from jaxtyping import" in path.read_text()]
install_import_hook(
    [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in _shaped],
    "beartype.beartype",
)

# Tracing makes many objects; looking at all of them for cycles as often as Python does took a tenth of the time.
gc.set_threshold(100_000, 50, 100)


def pytest_collection_finish():
    """What has been imported stays."""
    gc.freeze()


# Files whose tests start whole runs come first, so that neither of two workers is left with one of them at the end.
LONG = ("hosts", "survival", "train", "final", "sweep_together", "sweep_local", "cache", "publish", "finetune")


def pytest_collection_modifyitems(items):
    """Put the long files first; the others stay in order."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
