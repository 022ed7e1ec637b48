"""The table of runs: what is read from their directories, whatever became of them, and the groups of their seeds."""

import csv
import json

import pyarrow.parquet
import pytest

from tests.sweeps import TESTED, add_sweep, ended, make_run, started
from tests.tiny import FILE
from vit_jax.errors import InputError
from vit_jax.sweeps.groups import chosen_metric, groups, selected
from vit_jax.sweeps.table import differing, read_runs, write_table


def read_csv(folder):
    with (folder / "results.csv").open() as lines:
        return list(csv.DictReader(lines))


def make_sweep(folder):
    """Two rates with two seeds each; the smaller rate is better in the mean, the larger has the best single run."""
    found = {("0.001", 0): 0.5, ("0.001", 1): 0.625, ("0.1", 0): 0.25, ("0.1", 1): 0.75}
    for (lr, seed), accuracy in found.items():
        overrides = {"seed": str(seed), "optim.lr": lr}
        run = make_run(folder / f"seed={seed},optim.lr={lr}", overrides, accuracy)
        add_sweep(run, overrides, started(), ended(0))
    return folder


def test_a_row_has_what_a_run_found_and_what_it_cost(tmp_path):
    make_run(tmp_path / "run", {"optim.lr": "0.01"}, 0.5, config=TESTED, test=0.375)
    (row,) = read_runs([tmp_path])
    assert (row.run, row.status, row.metric, row.spec) == ("run", "done", "val/accuracy", None)
    assert row.config["optim.lr"] == 0.01
    assert row.config["augment.randaugment"] == [0, 0.0]
    assert row.metrics == {
        "train/loss": 0.1,
        "val/accuracy": 0.5,
        "val/accuracy_low": 0.4,
        "val/loss": 0.5,
        "val/count": 36,
        "test/accuracy": 0.375,
        "test/loss": 0.625,
        "test/count": 36,
        "test/step": 10,
        "best val/accuracy": 0.5625,
        "best val/loss": 0.4375,
    }
    assert row.counts == {
        "step": 20,
        "steps": 20,
        "parameters": 1234,
        "flops": 20_000.0,
        "seconds": 10.0,
        "device_seconds": 20.0,
        "memory_gib": 0.25,
        "exit": None,
        "error": None,
        "ended": None,
    }
    assert read_runs([tmp_path / "run"]) == [row]


@pytest.mark.parametrize(
    ("events", "steps", "status", "error"),
    [
        ([started(), ended(0)], 20, "done", None),
        ([started()], 10, "unfinished", None),
        ([started()], 20, "done", None),  # The sweep was killed, but not the run.
        ([started(), ended(75, "stopped"), started()], 10, "unfinished", None),
        ([started(), ended(75, "stopped")], 10, "stopped", None),
        ([started(), ended(130, "interrupted")], 10, "stopped", None),
        ([started(), ended(75, "stopped", pruned=True)], 10, "pruned", None),
        ([started(), ended(2, "first", "error: no such picture")], 10, "failed", "error: no such picture"),
        ([started(), ended(-9, "step 5/20")], 10, "failed", "killed by SIGKILL"),
        ([started(), ended(-40)], 10, "failed", "killed by signal 40"),
    ],
)
def test_what_became_of_a_run(tmp_path, events, steps, status, error):
    add_sweep(make_run(tmp_path / "run", steps=steps), {}, *events, log="reading\nstep 5/20\n")
    (row,) = read_runs([tmp_path])
    assert (row.status, row.counts["error"]) == (status, error)
    assert row.counts["exit"] == events[-1].get("exit")
    assert row.counts["ended"] == (events[-1]["time"] if "exit" in events[-1] else None)
    last = events[-1].get("lines") or ["reading", "step 5/20"]  # Of the log.
    assert row.lines == ([] if status == "done" else last)


def test_without_a_sweep_a_run_is_done_at_its_last_step_and_when_it_is_tested(tmp_path):
    make_run(tmp_path / "half", steps=15)
    make_run(tmp_path / "to be tested", config=TESTED)
    make_run(tmp_path / "tested", config=TESTED, test=0.5)
    old = make_run(tmp_path / "without a size", size=None)
    statuses = {row.run: row.status for row in read_runs([tmp_path])}
    assert statuses == dict.fromkeys(("half", "to be tested", "without a size"), "unfinished") | {"tested": "done"}
    (old / "README.md").write_text("a card")  # Written once training is done.
    (row,) = read_runs([old])
    assert row.status == "done"
    assert (row.counts["flops"], row.counts["device_seconds"], row.counts["seconds"]) == (None, None, 10.0)


def test_a_run_in_progress(tmp_path):
    run = make_run(tmp_path / "run", steps=10)
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 15, "train/lo')
    (row,) = read_runs([run])
    assert (row.status, row.counts["step"]) == ("unfinished", 10)
    (run / "metrics.jsonl").write_text('{"step": 5}\n{"stap": 10}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl' has a line that is not a metrics record"):
        read_runs([run])
    (run / "metrics.jsonl").write_text("")
    assert read_runs([run])[0].counts["step"] is None
    (run / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json' can't be read"):
        read_runs([run])


def test_a_run_that_never_started_has_the_config_of_its_command(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    spec, sweep = str(tmp_path / "tiny.py"), tmp_path / "sweep"
    add_sweep(sweep / "bad", {"optim.lr": "fast"}, started(), ended(2, "error: fast"), spec=spec)
    add_sweep(sweep / "killed", {"optim.lr": "1e-3"}, started(), spec=spec, log="reading\nstep 1\n")
    bad, killed = read_runs([sweep])
    assert bad.config == {"batch": 64, "optim.lr": "fast"}
    assert (bad.status, bad.counts["seconds"], bad.metrics) == ("failed", 60.5, {})
    assert (killed.status, killed.config["optim.lr"], killed.metric) == ("unfinished", 0.001, "val/accuracy")
    assert (killed.started, killed.lines, killed.records) == (False, ["reading", "step 1"], [])
    # What a run settles when it starts is no difference from one that did not get so far.
    make_run(sweep / "good", {"optim.lr": "0.01", "data.val": "validation"})
    assert differing(read_runs([sweep])) == ["optim.lr"]


def test_which_keys_differ(tmp_path):
    for seed in (0, 1):
        overrides = {"seed": str(seed), "optim.lr": f"{seed + 1}.0", "data.threads": str(seed + 1)}
        run = make_run(tmp_path / str(seed), overrides | {"data.path": f"/home/{seed}", "batch": str(32 * (seed + 1))})
        add_sweep(run, overrides, started(), ended(0))
    # Where the data is differs too, but the runs learn the same of it, and no sweep set it.
    assert differing(read_runs([tmp_path])) == ["optim.lr", "data.threads", "batch", "seed"]
    assert differing(read_runs([tmp_path / "0"])) == []


def test_files_have_a_typed_column_for_each_key_and_metric(tmp_path):
    sweep = tmp_path / "sweep"
    for i, (value, flip) in enumerate([("(1,5.0)", "True"), ("(2,9)", "False")]):
        overrides = {"augment.randaugment": value, "augment.flip": flip, "seed": str(i), "ema": ["None", "0.5"][i]}
        add_sweep(make_run(sweep / f"run{i}", overrides, 0.25), overrides, started(), ended(0))
    add_sweep(sweep / "worse", {"seed": "7"}, started(), ended(2, "all, of\tit", 'a "name", it'))
    write_table(sweep, read_runs([sweep]))
    table = pyarrow.parquet.read_table(sweep / "results.parquet")
    rows = table.to_pylist()
    keys = ["augment.randaugment", "augment.flip", "ema", "seed"]
    metrics = ["val/accuracy", "val/accuracy_low", "val/loss", "val/count", "train/loss"]
    metrics += ["best val/accuracy", "best val/loss"]
    costs = ["step", "steps", "parameters", "flops", "seconds", "device_seconds", "memory_gib"]
    costs += ["exit", "error", "ended"]
    assert table.column_names == ["run", "status", *keys, *metrics, *costs, "directory"]
    assert [row["augment.randaugment"] for row in rows] == ["[1, 5.0]", "[2, 9.0]", None]
    assert [row["augment.flip"] for row in rows] == [True, False, None]
    assert [row["ema"] for row in rows] == [None, 0.5, None]
    assert [row["seed"] for row in rows] == [0, 1, 7]
    assert [row["error"] for row in rows] == [None, None, 'a "name", it']
    assert [row["directory"] for row in rows] == ["run0", "run1", "worse"]
    texts = read_csv(sweep)
    assert list(texts[0]) == table.column_names
    assert [(row["best val/accuracy"], row["exit"], row["error"]) for row in texts] == [
        ("0.3125", "0", ""),
        ("0.3125", "0", ""),
        ("", "2", 'a "name", it'),
    ]
    assert sorted(path.name for path in sweep.iterdir()) == ["results.csv", "results.parquet", "run0", "run1", "worse"]


def test_names_of_runs_in_several_folders_are_unique(tmp_path):
    for name in ("a/run", "b/run"):
        make_run(tmp_path / name)
    assert [row.run for row in read_runs([tmp_path / "a", tmp_path / "b"])] == ["a/run", "b/run"]
    assert [row.run for row in read_runs([tmp_path / "a", tmp_path / "a/run"])] == ["run"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty' has no runs"):
        read_runs([tmp_path / "a", tmp_path / "empty"])
    with pytest.raises(InputError, match="nowhere' is not a folder"):
        read_runs([tmp_path / "nowhere"])


def test_seeds_are_grouped_and_the_best_mean_is_selected(tmp_path):
    rows = read_runs([make_sweep(tmp_path)])
    small, large = groups(rows)
    assert (small.values, large.values) == ({"optim.lr": 0.001}, {"optim.lr": 0.1})
    assert [row.config["seed"] for row in small.rows] == [0, 1]
    assert (small.mean("val/accuracy"), large.mean("val/accuracy")) == (0.5625, 0.5)
    assert small.spread("val/accuracy") == pytest.approx(0.125 / 2**0.5)
    assert large.mean("seconds") == 10.0
    assert selected(rows).values == {"optim.lr": 0.001}
    assert selected(rows, "val/loss").values == {"optim.lr": 0.001}
    assert selected(rows, "best val/accuracy").values == {"optim.lr": 0.001}


def test_means_are_of_runs_that_are_done(tmp_path):
    sweep = make_sweep(tmp_path)
    add_sweep(sweep / "seed=0,optim.lr=0.1", {"seed": "0", "optim.lr": "0.1"}, started(), ended(-9))
    rows = read_runs([sweep])
    large = groups(rows)[1]
    assert (large.numbers("val/accuracy"), large.spread("val/accuracy")) == ([0.75], None)
    assert selected(rows) == large
    for path in sweep.iterdir():
        (path / "attempts.jsonl").write_text(json.dumps(ended(1)) + "\n")
    assert selected(read_runs([sweep])) is None


def test_the_metric_is_the_runs_own_or_one_that_they_have(tmp_path):
    rows = read_runs([make_sweep(tmp_path)])
    assert chosen_metric(rows, None) == "val/accuracy"
    have = "'val/accuracy', 'val/loss', 'train/loss', 'best val/accuracy', 'best val/loss'"
    with pytest.raises(InputError, match=f"'val/acc': no run has it; they have {have}$"):
        chosen_metric(rows, "val/acc")
    with pytest.raises(InputError, match="not selected by their test split"):
        selected(rows, "test/accuracy")
    last = make_run(tmp_path / "last", {"select": "None"})
    assert chosen_metric(read_runs([last]), None) == "val/accuracy"
    loss = make_run(tmp_path / "loss", {"select": "val/loss"})
    assert chosen_metric(read_runs([loss]), None) == "val/loss"
