"""Real processes with 2 x 4 and 4 x 2 devices get the same pictures, crops and mixes, and train as one process does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.hosts import STEPS, losses, read
from tests.runs import free_port
from tests.test_data import write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_folder(tmp_path_factory.mktemp("hosts"), per_class=9)
    (root / "train" / "cat" / "3.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def whole(folder):
    """What one process with four devices reads."""
    return read(str(folder))


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def start(processes, folder, out, *more):
    """Start the processes, each with its share of eight devices."""
    address = f"localhost:{free_port()}"
    # Compiled as in this process: another optimization level rounds the mixes differently.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={8 // processes}"
    environment = os.environ | {"XLA_FLAGS": flags}
    environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hosts", str(folder), str(out), *more],
            env=environment | {"JAX_PROCESS_ID": str(i)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for i in range(processes)
    ]


def test_processes_share_the_global_batch_and_train_alike(folder, whole, tmp_path):
    running = {2: start(2, folder, tmp_path / "of-2", "train"), 4: start(4, folder, tmp_path / "of-4")}
    alone = losses(devices=1)
    for number, processes in running.items():
        for process in processes:
            error = process.communicate(timeout=240)[1].decode()
            assert process.returncode == 0, error
        parts = [dict(np.load(tmp_path / f"of-{number}-{i}.npz")) for i in range(number)]
        assert all(len(part["rows"]) == 8 // number for part in parts)
        rows = np.concatenate([part["rows"] for part in parts])
        assert sorted(rows) == list(range(8))
        order = np.argsort(rows)
        joined = {name: np.concatenate([part[name] for part in parts], 1)[:, order] for name in whole if name != "rows"}
        assert_equal(joined | {"rows": np.sort(rows)}, whole)
    for i in range(2):
        np.testing.assert_allclose(json.loads((tmp_path / f"of-2-{i}.json").read_text()), alone, rtol=1e-5)


def test_threads_and_resuming_change_nothing(folder, whole):
    assert whole["image"].shape == (STEPS, 8, 8, 8, 3)
    assert 0 < whole["replaced"].sum() < 2 * STEPS
    assert_equal(read(str(folder), threads=1), whole)
    assert_equal(read(str(folder), threads=16), whole)
    resumed = read(str(folder), first=17)
    assert_equal(resumed, {name: array if name == "rows" else array[17:] for name, array in whole.items()})
