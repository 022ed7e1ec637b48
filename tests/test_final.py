"""The test split: evaluated once, at the end of a run, with the selected weights, whatever happens before."""

import json
import signal

import pytest

from tests.runs import Run, records, saved_steps
from tests.test_bad_input import refusal
from tests.test_data import write_folder
from tests.test_survival import await_step
from tests.tiny import FILE
from vit_jax import evaluate, train
from vit_jax.errors import STOPPED
from vit_jax.runs.directory import read_facts

TESTED = (
    *("--config.data.train=train[20%:]", "--config.data.val=train[:20%]", "--config.data.test=test"),
    *("--config.total=12st", "--config.eval_every=3st", "--config.save_every=3st", "--config.keep=1"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose best checkpoint, by calibration, is not the last."""
    folder = tmp_path_factory.mktemp("final")
    (folder / "tiny.py").write_text(FILE)
    train.main([f"--config={folder}/tiny.py", f"--workdir={folder}/run", *TESTED, "--config.select=val/ece"])
    return folder / "run"


def reports(workdir):
    return [record for record in records(workdir) if any(name.startswith("test/") for name in record)]


def test_it_is_reported_once_and_of_the_selected_weights(run, capsys):
    errors = {record["step"]: record["val/ece"] for record in records(run) if "val/ece" in record}
    best = min(errors, key=errors.get)
    assert list(errors) == [3, 6, 9, 12]
    assert best < 12
    assert saved_steps(run) == [best, 12]
    assert records(run)[-1:] == reports(run)
    (report,) = reports(run)
    assert (report["step"], report["test/step"], report["test/count"]) == (12, best, 360)
    evaluate.main([f"--workdir={run}", "--checkpoint=best", "--config.evaluators.val.split=test"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["test/accuracy"] == printed["val/accuracy"]
    assert report["test/loss"] == pytest.approx(printed["val/loss"], rel=1e-6)
    assert json.loads((run / "evaluation" / "test-12.json").read_text())["accuracy"] == report["test/accuracy"]


def test_the_same_command_adds_nothing_to_a_finished_run_and_what_is_missing_to_another(run, capsys):
    arguments = [f"--config={run.parent}/tiny.py", f"--workdir={run}", *TESTED, "--config.select=val/ece"]
    before = records(run)
    train.main(arguments)
    assert records(run) == before
    assert "test/accuracy" not in capsys.readouterr().out
    # As if killed while the test split was evaluated.
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    train.main(arguments)
    assert records(run) == before
    assert "pictures, once, with the weights of step" in capsys.readouterr().out


def test_stopped_while_it_is_made_and_made_by_the_same_command(tmp_path):
    long = ("--config.total=4st", "--config.batch=16", "--config.eval_every=4st", "--config.data.test=train[:30%]")
    stopped = Run(tmp_path, tmp_path / "run", *long)
    await_step(stopped, tmp_path / "run", 4)
    stopped.processes[0].send_signal(signal.SIGTERM)
    assert stopped.wait() == [STOPPED], stopped.text()
    assert "stopped at step 4 of 4, saved; run the same command again to continue" in stopped.text()
    assert saved_steps(tmp_path / "run")[-1] == 4
    assert not reports(tmp_path / "run")
    Run(tmp_path, tmp_path / "run", *long).finish()
    (report,) = reports(tmp_path / "run")
    assert (report["step"], report["test/step"], report["test/count"]) == (4, 4, 431)


def command(tmp_path, *overrides):
    (tmp_path / "tiny.py").write_text(FILE)
    pictures = write_folder(tmp_path / "pictures")
    arguments = [f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", "--config.data.name=folder"]
    arguments += [
        f"--config.data.path={pictures}",
        "--config.channels=3",
        "--config.total=2st",
        "--config.data.val=train",
    ]
    return pictures, [*arguments, *overrides]


def test_a_test_split_that_is_missing_at_the_start_is_refused(tmp_path, capfd):
    _, arguments = command(tmp_path, "--config.data.test=tests")
    assert "pictures/tests' does not exist" in refusal(capfd, train.main, *arguments)
    error = refusal(
        capfd, train.main, *arguments[:-1], "--config.data.test=test", "--config.evaluators.test.split=test"
    )
    assert "config.evaluators: 'test' is what config.data.test is reported as; use another name" in error
    assert not (tmp_path / "run").exists()


def test_a_test_split_that_cannot_be_read_at_the_end_loses_nothing(tmp_path, capfd):
    pictures, arguments = command(tmp_path, "--config.data.val=auto", "--config.data.test=auto")
    arguments += ["--config.data.cache_mb=0"]
    damaged = pictures / "test" / "cat" / "1.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"no picture")
    error = refusal(capfd, train.main, *arguments)
    assert "training is done and saved, but config.data.test='test' could not be evaluated: 1 of 6 pictures" in error
    assert saved_steps(tmp_path / "run")[-1] == records(tmp_path / "run")[-1]["step"] == 2
    # What was settled is what the run is, and what the same command settles again.
    settled = read_facts(tmp_path / "run").config.data
    assert (settled.train, settled.val, settled.test) == ("train[2:]", "train[:2]", "test")
    damaged.write_bytes(whole)
    train.main(arguments)
    (report,) = reports(tmp_path / "run")
    assert report["test/count"] == 6
