"""How tests compile. Most of their time is compilation: it is done without optimization and without fusing in MLIR."""

import importlib.util
import mmap
from pathlib import Path


def _knows(flag: str) -> bool:
    """Return whether this jaxlib knows a flag; it aborts on others."""
    library = Path(importlib.util.find_spec("jaxlib").origin).with_name("libjax_common.so")
    if not library.exists():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        return code.find(flag.encode()) >= 0


FUSION = "xla_cpu_use_fusion_emitters"
FLAGS = "--xla_backend_optimization_level=0" + (f" --{FUSION}=false" if _knows(FUSION) else "")
