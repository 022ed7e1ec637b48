"""Runs that are trained in one program: each is the run alone; stopped, continued, diverged, refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.quick import FLAGS
from tests.runs import checkpoint, records, saved_steps, timeless
from tests.tiny import CONFIG, FILE
from vit_jax.cluster.preemption import Preemption
from vit_jax.config import MeshShape, Optim
from vit_jax.errors import NOT_FINITE, STOPPED, InputError, Stop
from vit_jax.runs.directory import read_facts
from vit_jax.sweeps.mapped import check_numbers
from vit_jax.sweeps.together import read_command, train_together
from vit_jax.train import train

# Small batches, so that what is summed in another order is all that differs. Split parameters, gathered when read.
LONG = dataclasses.replace(
    CONFIG,
    batch=32,
    total="12st",
    eval_every="6st",
    save_every="5st",
    mesh=MeshShape(2, 4),
    data=dataclasses.replace(CONFIG.data, val="test[:96]"),
)
CONFIGS = [
    LONG,
    dataclasses.replace(LONG, label_smoothing=0.1, optim=Optim(lr=3e-3, weight_decay=0.5)),
    dataclasses.replace(LONG, seed=6, optim=Optim(lr=1e-2, weight_decay=0.0)),
]
NAMES = ("one", "two", "three")


class StopAt(Preemption):
    """A signal after so many steps and batches of evaluations."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def agreed(self):
        self.left -= 1
        return 0 if self.left > 0 else STOPPED


def folders(parent):
    return [parent / name for name in NAMES]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The uninterrupted runs."""
    folder = tmp_path_factory.mktemp("together")
    train_together(CONFIGS, folders(folder), Preemption())
    return folder


def test_every_run_is_the_run_alone(together, tmp_path):
    for config, name in zip(CONFIGS[1:], NAMES[1:], strict=True):
        train(config, tmp_path / name, Preemption())
        alone, found = timeless(tmp_path / name), timeless(together / name)
        assert [list(record) for record in found] == [list(record) for record in alone]
        assert [record["step"] for record in found] == list(range(1, 13))
        for one, other in zip(alone, found, strict=True):
            # The norm of the gradient is not what the run learns, and loses more digits to sums.
            for key in one.keys() - {"train/grad_norm"}:
                np.testing.assert_allclose(other[key], one[key], rtol=1e-5, err_msg=f"{name} {one['step']} {key}")
        assert read_facts(together / name) == read_facts(tmp_path / name)
        assert saved_steps(together / name) == saved_steps(tmp_path / name)
        assert (together / name / "README.md").exists()
    losses = [records(folder)[-1]["train/loss"] for folder in folders(together)]
    assert len({round(loss, 3) for loss in losses}) == 3
    sizes = [json.loads((parent / "two" / "run.json").read_text())["size"] for parent in (tmp_path, together)]
    assert sizes[1] == sizes[0] | {"together": 3}


def test_stopped_and_continued_equals_uninterrupted_to_the_bit_whatever_becomes_of_one_run(together, tmp_path, capsys):
    """One of the runs diverges, which ends it alone, also when they are continued."""
    wild = dataclasses.replace(CONFIGS[1], optim=dataclasses.replace(CONFIGS[1].optim, lr=1e30))
    configs = [CONFIGS[0], wild, CONFIGS[2]]
    # In the evaluation of the last run; each has 3 batches.
    with pytest.raises(Stop, match="stopped at step 6 of 12, saved; run the same command again") as stop:
        train_together(configs, folders(tmp_path), StopAt(6 + 3 + 2))
    assert stop.value.code == STOPPED
    last = records(tmp_path / "two")[-1]["step"]
    assert f"two: error: the loss or the gradient of step {last + 1} is not finite" in capsys.readouterr().err
    assert [len(records(folder)) for folder in folders(tmp_path)] == [6, last, 5]
    assert [saved_steps(folder) for folder in folders(tmp_path)] == [[5, 6]] * 3
    # As if the last save had been killed in the middle: all go back to what all have.
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "6")
    with pytest.raises(Stop, match="error: 1 of 3 runs had a loss or gradient not finite: two") as stop:
        train_together(configs, folders(tmp_path), Preemption())
    assert stop.value.code == NOT_FINITE
    assert records(tmp_path / "two")[-1]["step"] == last
    assert not (tmp_path / "two" / "README.md").exists()
    for name in ("one", "three"):
        assert timeless(together / name) == timeless(tmp_path / name)
        first, second = checkpoint(together / name, 12), checkpoint(tmp_path / name, 12)
        assert first.keys() == second.keys()
        for key, array in first.items():
            np.testing.assert_array_equal(array, second[key], err_msg=key)


def test_the_command_stops_on_a_signal(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    for seed, folder in enumerate(folders(tmp_path)):
        folder.mkdir()
        command = {"config": str(tmp_path / "tiny.py"), "overrides": {"seed": str(seed)}, "fixed": {"keep": "1"}}
        (folder / "command.json").write_text(json.dumps(command))
    assert read_command(tmp_path / "two") == dataclasses.replace(CONFIG, seed=1, keep=1)
    command = [sys.executable, "-m", "vit_jax.sweeps.together", *map(str, folders(tmp_path))]
    environment = os.environ | {"XLA_FLAGS": FLAGS}
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    while process.poll() is None and len(records(tmp_path / "three")) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == STOPPED, (tmp_path / "output.txt").read_text()
    assert saved_steps(tmp_path / "one") == saved_steps(tmp_path / "three") != []


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (
            {"batch": 16},
            NAMES[:2],
            r"config.batch=16 of run 'two' is 32 in 'one': runs that are trained together differ",
        ),
        (
            {"optim": Optim(b1=0.8)},
            NAMES[:2],
            r"config.optim.b1=0.8 of run 'two' is 0.9 in 'one': .* label_smoothing al",
        ),
        ({"seed": 7}, ("one", "one"), r"run '.*one' is given twice$"),
    ],
)
def test_runs_that_differ_in_more_are_refused(tmp_path, change, names, message):
    with pytest.raises(InputError, match=message) as caught:
        check_numbers([LONG, dataclasses.replace(LONG, **change)], [tmp_path / name for name in names])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_runs_without_a_common_checkpoint_or_a_command_are_refused(tmp_path):
    for name, step in (("one", 4), ("two", 8)):
        (tmp_path / name / "checkpoints" / str(step)).mkdir(parents=True)
    with pytest.raises(InputError, match=r"in common \(newest: one 4, two 8\); continue them alone"):
        train_together(CONFIGS[:2], folders(tmp_path)[:2], Preemption())
    with pytest.raises(InputError, match=r"command.json' can't be read .*; give the folders of a sweep's runs$"):
        read_command(tmp_path / "one")
