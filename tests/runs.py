"""Runs of the training command as a user starts it, in one process or several, and their output files."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.quick import FLAGS
from tests.tiny import FILE
from vit_jax import tree

TIMES = ("train/images_per_second", "train/data_wait", "train/seconds", "train/memory_gib")


class Run:
    """The command, started in several processes with several devices; process i prints to output-i.txt.

    Args:
        devices: of each process, or a tuple of them.
        started: number of the processes that are actually started.
    """

    def __init__(
        self,
        folder: Path,
        workdir: Path,
        *overrides: str,
        processes: int = 1,
        devices: int | tuple[int, ...] = 1,
        started: int | None = None,
    ):
        (folder / "tiny.py").write_text(FILE)
        command = [sys.executable, "-m", "vit_jax.train", f"--config={folder / 'tiny.py'}", f"--workdir={workdir}"]
        devices = (devices,) * processes if isinstance(devices, int) else devices
        self.outputs = [folder / f"output-{i}.txt" for i in range(processes)][:started]
        self.processes = []
        address = f"localhost:{free_port()}"
        for i, output in enumerate(self.outputs):
            environment = os.environ | {"XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count={devices[i]}"}
            if processes > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": str(processes),
                    "JAX_PROCESS_ID": str(i),
                }
            with output.open("w") as stream:
                process = subprocess.Popen([*command, *overrides], stdout=stream, stderr=stream, env=environment)
            self.processes.append(process)

    def wait(self, timeout: float = 240) -> list[int]:
        """Return the exit codes; it is -n for a process killed by signal n."""
        return [process.wait(timeout) for process in self.processes]

    def running(self) -> bool:
        """Return whether any process is running."""
        return any(process.poll() is None for process in self.processes)

    def text(self) -> str:
        """Return what all processes printed."""
        return "\n".join(output.read_text() for output in self.outputs)

    def finish(self) -> None:
        """Wait for the end, and check that it succeeded."""
        assert not any(self.wait()), self.text()


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def records(workdir: Path) -> list[dict]:
    """Return the metrics of a run."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(workdir: Path) -> list[dict]:
    """Return the metrics of a run without those that differ between any two runs."""
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records(workdir)]


def saved_steps(workdir: Path) -> list[int]:
    """Return the steps of the finished checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal())


def checkpoint(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Return every array of a checkpoint by name, read without the code under test, on any devices."""
    folder, reader = workdir / "checkpoints" / str(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    arrays = {}
    for path in (path for path in folder.iterdir() if (path / "_METADATA").exists()):
        to_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata.tree
        )
        arrays |= tree.flatten({path.name: reader.restore(path, ocp.args.PyTreeRestore(restore_args=to_numpy))})
    return arrays


def assert_equal_runs(one: Path, two: Path) -> None:
    """Compare two complete runs to the bit: each line of the metrics, and each array of the last state."""
    assert timeless(one) == timeless(two)
    assert saved_steps(one)[-1] == saved_steps(two)[-1] == records(one)[-1]["step"]
    first, second = (checkpoint(run, saved_steps(run)[-1]) for run in (one, two))
    assert first.keys() == second.keys()
    assert len(first) > 60
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
