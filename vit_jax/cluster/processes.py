"""The processes of a run: finding, joining and comparing them, and ending them together."""

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed
from jax.sharding import Mesh

from vit_jax.cluster.heartbeat import Heartbeat, exit_now
from vit_jax.errors import INPUT, PEER_DIED, InputError, Stop

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def settings(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the arguments of `jax.distributed.initialize`, or None for a process that runs alone.

    They come from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or else from the variables of srun or
    mpirun. Otherwise JAX looks for a TPU pod or a Kubernetes job.

    Raises:
        InputError: some of the three variables are missing, or are not integers.
    """
    given = [name for name in EXPLICIT if environment.get(name)]
    if "JAX_NUM_PROCESSES" in given or "JAX_PROCESS_ID" in given:
        number = _integer(environment, "JAX_NUM_PROCESSES") if "JAX_NUM_PROCESSES" in given else None
        if number == 1:
            return None
        if missing := [name for name in EXPLICIT if name not in given]:
            raise InputError(
                f"{', '.join(given)} is set, but not {', '.join(missing)}; several processes need all three"
            )
        process = _integer(environment, "JAX_PROCESS_ID")
        if not 0 <= process < number:
            raise InputError(f"JAX_PROCESS_ID={process} is not in 0 ... JAX_NUM_PROCESSES - 1 = {number - 1}")
        return {
            "coordinator_address": environment["JAX_COORDINATOR_ADDRESS"],
            "num_processes": number,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
    if "SLURM_JOB_ID" in environment:
        # From the step, not the allocation: a command in an interactive allocation runs alone.
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1 or "SLURM_STEP_NODELIST" not in environment:
            return None
        found = {"num_processes": _integer(environment, "SLURM_STEP_NUM_TASKS")}
        return (
            found if environment.get("JAX_LOCAL_DEVICE_IDS") else found | {"local_device_ids": _local_ids(environment)}
        )
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return {} if int(environment["OMPI_COMM_WORLD_SIZE"]) > 1 else None
    return None if environment.get("JAX_PLATFORMS") == "cpu" else {}


def _integer(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError as error:
        raise InputError(f"{name}={environment[name]!r}: must be a whole number") from error


def _local_ids(environment: Mapping[str, str]) -> list[int]:
    # The GPUs of a SLURM task: an equal share if all tasks of the node see the same GPUs; [] means all it sees.
    tasks = _tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))[int(environment.get("SLURM_NODEID", 0))]
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("SLURM_GPUS_ON_NODE") or ""
    number = (
        int(visible) if "CUDA_VISIBLE_DEVICES" not in environment and visible.isdecimal() else len(visible.split(","))
    )
    own = "SLURM_GPUS_PER_TASK" in environment or "SLURM_TRES_PER_TASK" in environment
    if own or tasks == 1 or not visible or number % tasks:
        return []
    share, local = number // tasks, int(environment["SLURM_LOCALID"])
    return list(range(local * share, (local + 1) * share))


def _tasks_per_node(text: str) -> list[int]:
    # "2(x3),1" means 2, 2, 2, 1.
    counts = []
    for part in text.split(","):
        tasks, _, repeat = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(repeat or 1)
    return counts


@contextlib.contextmanager
def joined() -> Iterator[Heartbeat | None]:
    """Join the other processes of this run, if there are any; an exception in one of them ends them all.

    If a process does not join within VIT_JAX_START_TIMEOUT seconds (300), the others exit.

    Raises:
        InputError: the environment is inconsistent, or the processes have different devices.
    """
    arguments = settings(os.environ)
    if arguments is None:
        yield None
        return
    timeout = _integer({"VIT_JAX_START_TIMEOUT": "300", **os.environ}, "VIT_JAX_START_TIMEOUT")
    # Fires before JAX's own timeout, which ends the process with a dump.
    timer = threading.Timer(timeout, _late, [timeout])
    timer.daemon = True
    timer.start()
    try:
        heartbeat = _join(arguments, timeout)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        exit_now(INPUT)  # In a normal exit, JAX would wait for the others.
    if heartbeat is None:
        timer.cancel()
        yield None
        return
    try:
        _check_topology()
        timer.cancel()
        yield heartbeat
    except Stop:
        _leave(heartbeat)
        raise
    except BaseException as error:
        heartbeat.fail(error)
    _leave(heartbeat)


def _late(timeout: int) -> None:
    state = distributed.global_state
    print(
        f"error: process {state.process_id} at {state.coordinator_address}: not all processes joined "
        f"within {timeout} s (VIT_JAX_START_TIMEOUT); see the output of the others",
        file=sys.stderr,
    )
    exit_now(PEER_DIED)


def _join(arguments: dict[str, Any], timeout: int) -> Heartbeat | None:
    # Otherwise JAX would handle SIGTERM itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=timeout + 60)
    except ValueError as error:
        if not arguments and distributed.global_state.coordinator_address is None:
            return None  # JAX found no other processes.
        raise InputError(f"can't join the processes of the run: {error}") from error
    state = distributed.global_state
    if state.num_processes == 1:
        return None
    host = state.coordinator_address.rpartition(":")[0].strip("[]")
    return Heartbeat(state.process_id, state.num_processes, state.client, host, timeout)


def _leave(heartbeat: Heartbeat) -> None:
    heartbeat.leave()
    jax.distributed.shutdown()


def _check_topology() -> None:
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise InputError(f"can't initialize the devices: {' '.join(str(error).split())[:300]}") from error
    asked = distributed.global_state.num_processes
    if jax.process_count() != asked:
        raise InputError(
            f"{asked} processes were started, but {jax.process_count()} share the devices "
            f"({jax.default_backend()}); check that all have the same JAX_PLATFORMS and see their devices"
        )
    kinds = collections.defaultdict(list)
    for device in devices:
        kinds[device.process_index].append(device.device_kind)
    for process, kind in kinds.items():
        if kind != kinds[0]:
            raise InputError(
                f"process {process} has {len(kind)} {kind[0]} devices, process 0 {len(kinds[0])} {kinds[0][0]}; "
                "all need the same"
            )


def topology(mesh: Mesh) -> str:
    """Return one line that describes the processes, their devices and the mesh."""
    processes, devices = jax.process_count(), jax.local_devices()
    return (
        f"{processes} process{'es' if processes > 1 else ''} x {len(devices)} {devices[0].device_kind} "
        f"device{'s' if len(devices) > 1 else ''}, mesh "
        + " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    )
