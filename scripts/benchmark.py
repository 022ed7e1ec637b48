"""How fast this machine trains, infers, reads and compiles.

    python scripts/benchmark.py train     pictures per second of a training step     [--vs=timm]
    python scripts/benchmark.py infer     pictures per second of a forward pass      [--vs=timm]
    python scripts/benchmark.py attention each implementation of attention, and patterns   [--pattern=local:7]
    python scripts/benchmark.py roofline  where the time of a step goes, compared with the least it could take
    python scripts/benchmark.py compile   time to the first step: cold, and from the compilation cache
    python scripts/benchmark.py loop      the training loop compared with its bare step
    python scripts/benchmark.py data      pictures per second from each source of pictures
    python scripts/benchmark.py fewshot   the heads of few-shot evaluation, beside scikit-learn
    python scripts/benchmark.py packing   pictures of many shapes, beside padding to the largest
    python scripts/benchmark.py predict   predict compared with its forward pass     [--peer=PYTHON]

Each has its own --help. Contenders take turns within one run, and figures are medians: compare within a run, never
between two.
"""

import sys

from bench import attention, compile, data, fewshot, loop, model, packing, predict, roofline

from vit_jax.errors import InputError, nearest, run_command
from vit_jax.runtime import keep_memory

BENCHMARKS = {
    "train": model.train,
    "infer": model.infer,
    "attention": attention.main,
    "roofline": roofline.main,
    "compile": compile.main,
    "loop": loop.main,
    "data": data.main,
    "fewshot": fewshot.main,
    "packing": packing.main,
    "predict": predict.main,
}


def main(argv: list[str]) -> None:
    """Run the benchmark that the first argument names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return
    if argv[0] not in BENCHMARKS:
        raise InputError(f"no benchmark {argv[0]!r}; {nearest(argv[0], BENCHMARKS)}")
    keep_memory()
    BENCHMARKS[argv[0]](argv[1:])


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
