"""What a run reports: files that survive kills, honest rates, and readable lines."""

import json

import jax.numpy as jnp
import pytest

from vit_jax.errors import InputError
from vit_jax.runs.metrics import Clock, Progress, Writer


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_writer_drops_what_will_be_done_again_and_half_a_line(tmp_path):
    writer = Writer(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": step / 2})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')
    writer = Writer(tmp_path, 2)
    writer.write(3, {"train/loss": 9.0})
    writer.close()
    assert lines(tmp_path) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 1.0},
        {"step": 3, "train/loss": 9.0},
    ]


def test_a_damaged_line_is_told_and_nothing_is_lost(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\ngarbage\n')
    with pytest.raises(InputError, match="has a line that is not a metrics record; repair or remove it"):
        Writer(tmp_path, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\ngarbage\n'


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    writer = Writer(tmp_path, 0)
    writer.write(1, {"train/loss": 1.0})
    assert lines(tmp_path) == [{"step": 1, "train/loss": 1.0}]
    writer.close()


def test_clock_counts_waiting_and_leaves_out_pauses(monkeypatch):
    now = 100.0
    monkeypatch.setattr("vit_jax.runs.metrics.time.perf_counter", lambda: now)

    def slow():
        nonlocal now
        for i in range(4):
            now += 0.25
            yield i

    clock = Clock(batch=10)
    clock.start(0)
    for _ in clock.waiting(slow()):
        now += 1.0  # The step itself.
    with clock.pause(jnp.zeros(3)):
        now += 7.0
    assert clock.read(4) == {"images_per_second": 8.0, "data_wait": 0.2}
    now += 1.0
    assert clock.read(5) == {"images_per_second": 10.0, "data_wait": 0.0}


def test_cost_goes_on_where_a_stopped_run_was(monkeypatch, tmp_path):
    now = 100.0
    monkeypatch.setattr("vit_jax.runs.metrics.time.perf_counter", lambda: now)
    writer = Writer(tmp_path, 0)
    clock = Clock(10, writer.spent)
    for step in (1, 2):
        now += 5.0
        writer.write(step, clock.cost())
    writer.close()
    assert 0.01 < clock.cost()["train/memory_gib"] < 100
    writer = Writer(tmp_path, 1)  # Continued from step 1: what step 2 took is spent again.
    clock = Clock(10, writer.spent)
    now += 3.0
    assert clock.cost()["train/seconds"] == 8.0
    writer.close()


def test_progress_prints_plain_lines_where_there_is_no_terminal(capsys):
    progress = Progress(10, 20)
    progress.update(11, {})
    progress.update(
        15, {"train/loss": 0.12345, "train/images_per_second": 1234.5, "train/data_wait": 0.031, "train/lr": 1.0}
    )
    progress.close()
    printed = capsys.readouterr().out
    assert printed.startswith("step 15/20  train/loss 0.1235  train/images_per_second 1,234  train/data_wait 3%  left ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("metrics", [{"train/loss": 0.5}, {"val/accuracy": 0.5}])
def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch, metrics):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(0, 20)
    progress.update(20, metrics)
    progress.close()
    captured = capsys.readouterr()
    assert "20/20" in captured.err
    assert "0.5000" in captured.err + captured.out
