"""Sweeps of real runs on this machine: failures, kills, and what a second start does."""

import signal
import sys

import pytest

from tests.killed_sweeps import BAD, Sweep, check, kill_run, wait_until
from vit_jax.errors import RUNS_FAILED, STOPPED, InputError
from vit_jax.sweeps import attempt, local
from vit_jax.sweeps.attempt import Attempt, Slot, attempts, exit_code


def test_a_sweep_that_is_killed_repeats_nothing(tmp_path):
    sweep = Sweep(tmp_path, "sweep", 3, "--processes=2", "--config.total=12st", "--config.evaluators={}")
    sweep.start()
    killed = kill_run(sweep, 1)
    sweep.kill()
    sweep.start()
    assert sweep.finish() in (0, RUNS_FAILED), sweep.output.read_text()
    check(sweep, killed)
    (bad,) = (path for name, path in sweep.runs().items() if BAD in name)
    assert attempts(bad)[-1]["lines"] == ["error: image size 8x8 is not divisible by the patch size 3 of model 'Ti/3'"]
    table = (sweep.folder / "results.csv").read_text()
    assert table.count("\n") == 4
    assert "not divisible by the patch size 3" in table
    # Again: nothing is left to do. With --retry, the run that was killed is continued, and the bad one fails again.
    before = {name: attempts(path) for name, path in sweep.runs().items()}
    sweep.start()
    assert sweep.finish() == 0
    assert {name: attempts(path) for name, path in sweep.runs().items()} == before
    sweep.command.append("--retry")
    sweep.start()
    assert sweep.finish() == RUNS_FAILED
    assert {name: code for name, code in sweep.codes().items() if code} == {bad.name: 2}
    again = {name for name, path in sweep.runs().items() if attempts(path) != before[name]}
    assert again == {killed, bad.name}


def test_a_signal_stops_the_runs_and_the_same_command_continues(tmp_path):
    sweep = Sweep(tmp_path, "sweep", 3, "--processes=1", "--config.total=200st", "--only", "seed=0")
    sweep.start()
    wait_until(lambda: any((path / "metrics.jsonl").exists() for path in sweep.runs().values()))
    (run,) = sweep.runs().values()
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.finish() == STOPPED
    assert "SIGTERM: stopped; run the same command again to continue" in sweep.output.read_text()
    assert attempts(run)[-1]["exit"] == STOPPED
    assert exit_code(run) is None


def write_attempt(folder, code, name="run"):
    (folder / name).mkdir()
    return Attempt([folder / name], [sys.executable, "-c", code])


def test_an_attempt_waits_for_a_process_that_outlived_its_sweep(tmp_path):
    code = "import time; print('working', flush=True); time.sleep(1); print('done: 3 steps')"
    first = write_attempt(tmp_path, code)
    pool = local.Local([Slot(), Slot()])
    (one,) = pool.start([first])
    wait_until(lambda: (first.folders[0] / "log.txt").exists() and (first.folders[0] / "log.txt").read_text())
    (two,) = pool.start([first.fresh()])
    assert one.result() == two.result() == [0]
    assert (first.folders[0] / "log.txt").read_text() == "working\ndone: 3 steps\n"
    assert [event["event"] for event in attempts(first.folders[0])] == ["start", "end"]


def test_what_an_unrecorded_end_means(tmp_path):
    # The sweep was killed with the run still going: the output says that it is complete, though nobody wrote it down.
    done = write_attempt(tmp_path, "raise SystemExit(1)", "done")
    (done.folders[0] / "log.txt").write_text("done: 3 steps; python -m vit_jax.evaluate --workdir=DIR\n")
    assert done(Slot()) == [0]
    cut = write_attempt(tmp_path, "print('done: 3 steps')", "cut")
    (cut.folders[0] / "attempts.jsonl").write_text('{"event": "start", "pid": 1}\n{"event": "en')
    assert exit_code(cut.folders[0]) is None
    assert cut(Slot()) == [0]
    assert exit_code(cut.folders[0]) == 0  # The new lines don't go on where the old one was cut.


def test_a_slot_chooses_cores_and_devices(tmp_path, monkeypatch):
    code = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['CUDA_VISIBLE_DEVICES'])"
    one = write_attempt(tmp_path, code)
    assert one(Slot({"CUDA_VISIBLE_DEVICES": "3"}, (0,))) == [0]
    assert (one.folders[0] / "log.txt").read_text() == "[0] 3\n"
    monkeypatch.setattr(local, "_devices", lambda: ("gpu", 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.environment for slot in local.find_slots(2, None)] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [slot.environment for slot in local.find_slots(1, None)][1] == {"CUDA_VISIBLE_DEVICES": "5"}
    with pytest.raises(InputError, match="--devices_per_run=8: there are 4 here"):
        local.find_slots(8, None)
    with pytest.raises(InputError, match="--processes=1000: there are"):
        local.find_slots(1, 1000)


def test_a_failure_keeps_its_last_lines(tmp_path):
    failed = write_attempt(tmp_path, "print('a'); print(); import sys; sys.exit('error: b')")
    assert failed(Slot()) == [1]
    assert attempts(failed.folders[0])[-1]["lines"] == ["a", "error: b"]
    assert attempt.exit_code(failed.folders[0]) == 1
