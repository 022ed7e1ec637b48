"""Runs on this machine, as many at once as there are devices."""

import json
import os
import queue
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from vit_jax.errors import InputError
from vit_jax.sweeps.attempt import Attempt, Slot

_ASK = "import jax, json; found = jax.local_devices(); print(json.dumps([found[0].platform, len(found)]))"
# The variables that choose among the devices of a machine.
_VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}


class Local:
    """Starts attempts in the slots of this machine."""

    waits = True

    def __init__(self, slots: list[Slot]):
        self.room = len(slots)
        self._free = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(self.room)

    def start(self, attempts: list[Attempt]) -> list[Future]:
        """Start attempts; their results are the exit codes of their runs."""
        return [self._pool.submit(self._run, attempt) for attempt in attempts]

    def _run(self, attempt: Attempt) -> list[int | None]:
        slot = self._free.get()
        try:
            return attempt(slot)
        finally:
            self._free.put(slot)


def find_slots(devices_per_run: int, processes: int | None) -> list[Slot]:
    """Return the slots of this machine: its accelerators, or its CPU's cores in equal parts.

    Args:
        processes: number of runs at once on the CPU; None: one, or the accelerators if there are any.

    Raises:
        InputError: there are too few devices or cores.
    """
    if processes is not None:
        return _cpu_slots(processes)
    platform, number = _devices()
    if platform == "cpu":
        return _cpu_slots(1)
    parts = number // devices_per_run
    if not parts:
        raise InputError(f"--devices_per_run={devices_per_run}: there are {number} here")
    shares = [range(i * devices_per_run, (i + 1) * devices_per_run) for i in range(parts)]
    if parts == 1 and devices_per_run == number:
        return [Slot()]
    if platform == "tpu":
        if devices_per_run != 1:
            raise InputError(f"--devices_per_run={devices_per_run}: on a TPU host, 1 or all {number}")
        return [Slot(_tpu(i)) for i in range(parts)]
    variable = _VISIBLE[platform]
    visible = os.environ.get(variable, "").split(",") if os.environ.get(variable) else [str(i) for i in range(number)]
    return [Slot({variable: ",".join(visible[i] for i in share)}) for share in shares]


def _tpu(chip: int) -> dict[str, str]:
    one = "1,1,1"
    return {"TPU_VISIBLE_CHIPS": str(chip), "TPU_CHIPS_PER_PROCESS_BOUNDS": one, "TPU_PROCESS_BOUNDS": one}


def _cpu_slots(processes: int) -> list[Slot]:
    environment = {"JAX_PLATFORMS": "cpu"}
    if processes == 1 or not hasattr(os, "sched_getaffinity"):
        return [Slot(environment)] * processes
    cores = sorted(os.sched_getaffinity(0))
    if processes > len(cores):
        raise InputError(f"--processes={processes}: there are {len(cores)} cores here")
    return [Slot(environment, tuple(cores[i::processes])) for i in range(processes)]


def _devices() -> tuple[str, int]:
    # Asked in another process, because whoever looks at an accelerator takes it.
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True)
    if done.returncode:
        *_, why = done.stderr.strip().splitlines() or ["no output"]
        raise InputError(f"can't find the devices: {why}; for the CPU, give --processes")
    platform, number = json.loads(done.stdout.splitlines()[-1])
    return platform, number
