"""A run that is stopped, loses a process or is not finite; `python -m tests.kills` tests this more, at random."""

import signal
import time

import numpy as np
import pytest

from tests.runs import Run, assert_equal_runs, checkpoint, records, saved_steps
from vit_jax.cluster.processes import settings
from vit_jax.errors import INPUT, NOT_FINITE, PEER_DIED, STOPPED, InputError

# An evaluation of 27 batches at step 5, long enough to be interrupted.
LONG = (
    "--config.total=10st",
    "--config.batch=16",
    "--config.eval_every=5st",
    "--config.save_every=3st",
    "--config.data.val=train[:30%]",
)


def await_step(run, workdir, step):
    """Wait until the metrics of a step are written."""
    path, end = workdir / "metrics.jsonl", time.monotonic() + 200
    while not (path.exists() and path.read_text().count("\n") >= step):
        assert run.running(), run.text()
        assert time.monotonic() < end, run.text()
        time.sleep(0.01)


def test_stopped_in_an_evaluation_then_a_process_killed_then_finished_by_one(tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    Run(tmp_path, whole, *LONG, devices=2).finish()

    run = Run(tmp_path, workdir, *LONG, processes=2)
    await_step(run, workdir, 4)
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.wait() == [STOPPED, STOPPED], run.text()
    assert saved_steps(workdir)[-1] == 5
    assert records(workdir)[-1]["step"] == 4
    assert "stopped at step 5 of 10" in run.text()

    run = Run(tmp_path, workdir, *LONG, processes=2)
    await_step(run, workdir, 7)
    run.processes[0].kill()
    began = time.monotonic()
    assert run.wait() == [-signal.SIGKILL, PEER_DIED], run.text()
    assert time.monotonic() - began < 60
    assert "process 0 died; run the same command again, on all hosts, to continue" in run.text()

    Run(tmp_path, workdir, *LONG, devices=2).finish()
    assert_equal_runs(whole, workdir)


def test_an_update_that_is_not_finite_is_skipped_and_one_too_many_ends_the_run(tmp_path):
    diverging = ("--config.optim.lr=1e18", "--config.save_every=2st", "--config.max_skipped=2")
    run = Run(tmp_path, tmp_path / "run", *diverging, "--config.evaluators={}")
    assert run.wait() == [NOT_FINITE], run.text()
    assert (
        run.text()
        .splitlines()[-1]
        .startswith(
            "error: the loss or the gradient of step 5 is not finite, and config.max_skipped=2 allows no more; "
            f"the last good checkpoint is that of step 4, in '{tmp_path / 'run'}'"
        )
    )
    assert [(line["step"], line["train/skipped"]) for line in records(tmp_path / "run")] == [
        (1, 0),
        (2, 0),
        (3, 1),
        (4, 1),
    ]
    assert [line["train/loss"] is None for line in records(tmp_path / "run")] == [False, False, True, True]
    before, after = checkpoint(tmp_path / "run", 2), checkpoint(tmp_path / "run", 4)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"training/step", "training/skipped"}


def test_processes_with_different_devices_are_refused(tmp_path):
    run = Run(tmp_path, tmp_path / "run", processes=2, devices=(2, 1))
    assert run.wait() == [INPUT, INPUT], run.text()
    assert "error: process 1 has 1 cpu devices, process 0 2 cpu; all need the same" in run.text()
    assert not (tmp_path / "run").exists()


def test_a_process_that_does_not_come_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_JAX_START_TIMEOUT", "1")
    run = Run(tmp_path, tmp_path / "run", processes=2, started=1)
    assert run.wait() == [PEER_DIED], run.text()
    assert "not all processes joined within 1 s (VIT_JAX_START_TIMEOUT)" in run.text()


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}
EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"JAX_PLATFORMS": "cpu"}, None),
        ({}, {}),  # JAX looks for a TPU pod.
        ({"JAX_NUM_PROCESSES": "1", **SLURM}, None),
        (
            EXPLICIT | SLURM,
            {
                "coordinator_address": "a:1",
                "num_processes": 2,
                "process_id": 1,
                "cluster_detection_method": "deactivate",
            },
        ),
        (SLURM, {"num_processes": 4, "local_device_ids": []}),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # A batch script without srun.
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # An interactive allocation.
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {"num_processes": 4, "local_device_ids": [2, 3]}),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "3"}, {"num_processes": 4, "local_device_ids": []}),
        (
            SLURM | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"},
            {"num_processes": 4, "local_device_ids": []},
        ),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1", "JAX_LOCAL_DEVICE_IDS": "0"}, {"num_processes": 4}),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
    ],
)
def test_where_the_other_processes_are_found(environment, expected):
    assert settings(environment) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "is set, but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 is not in 0 ... JAX_NUM_PROCESSES - 1 = 1"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two': must be a whole number"),
    ],
)
def test_contradictory_variables_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        settings(EXPLICIT | change)
