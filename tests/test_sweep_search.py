"""A search: what Optuna is asked and told, and that a kill loses no trial."""

import math

import pytest

from tests.sweeps import make_run
from tests.tiny import FILE
from vit_jax.errors import STOPPED, InputError
from vit_jax.sweeps.plan import Base
from vit_jax.sweeps.search import Search
from vit_jax.sweeps.space import parse_space

SPACE = ["optim.lr=log(1e-5,1e-1)", "model.depth=int(1,4)", "model.pool=gap,map"]


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(FILE)
    return Base(str(path), {})


def open_search(folder, base, space=SPACE, **options):
    folder.mkdir(exist_ok=True)
    facts = dict(kind="tpe", trials=8, metric="val/accuracy", pruner="none", seed=0) | options
    return Search(folder, base, parse_space("--space", space), **facts)


def run_to_end(search, folder, run):
    """Make the directory of a run that does the better, the nearer its learning rate is to 1e-3."""
    accuracy = 0.9 - 0.1 * abs(math.log10(run.config.optim.lr) + 3)
    make_run(folder / run.name, run.overrides, accuracy)
    search.ended(run, 0, pruned=False)


def test_a_search_learns_from_the_runs_that_ended(base, tmp_path):
    folder = tmp_path / "search"
    search = open_search(folder, base, trials=20)
    assert search.left == 20
    runs = []
    while taken := search.take():
        (run,) = taken
        runs.append(run)
        run_to_end(search, folder, run)
    assert len(runs) == 20
    assert {run.config.model.pool for run in runs} == {"gap", "map"}
    off = [abs(math.log10(run.config.optim.lr) + 3) for run in runs]
    assert sum(off[-10:]) < sum(off[:10])
    # All are done: there is nothing left, and a larger number goes on.
    assert open_search(folder, base, trials=20).take() == []
    assert open_search(folder, base, trials=21).take() != []


def test_a_kill_loses_no_trial(base, tmp_path):
    folder = tmp_path / "search"
    search = open_search(folder, base)
    (first,), (second,) = search.take(), search.take()
    run_to_end(search, folder, first)
    search.ended(second, STOPPED, pruned=False)
    # Another process, after a kill: the run in the middle comes first, with the same overrides.
    again = open_search(folder, base)
    assert again.left == 7
    (third,) = again.take()
    assert third == second
    run_to_end(again, folder, third)
    rest = []
    while taken := again.take():
        (run,) = taken
        rest.append(run)
        run_to_end(again, folder, run)
    assert len(rest) == 6
    assert len({run.name for run in (first, second, *rest)}) == 8


def test_a_hopeless_run_is_stopped_early(base, tmp_path):
    folder = tmp_path / "search"
    search = open_search(folder, base, pruner="median", trials=20)
    for _ in range(6):
        (run,) = search.take()
        make_run(folder / run.name, run.overrides, 0.8)
        assert not search.unpromising(run)
        search.ended(run, 0, pruned=False)
    (run,) = search.take()
    make_run(folder / run.name, run.overrides, 0.1, steps=10)
    assert search.unpromising(run)
    search.ended(run, STOPPED, pruned=True)
    assert open_search(folder, base, pruner="median", trials=20).left == 13


def test_failures_and_a_metric_that_runs_do_not_write(base, tmp_path):
    folder = tmp_path / "search"
    search = open_search(folder, base, metric="val/acc")
    search.ended(*search.take(), 2, pruned=False)
    (run,) = search.take()
    make_run(folder / run.name, run.overrides)
    with pytest.raises(InputError, match="--metric=val/acc: runs don't write it; there are .*val/accuracy"):
        search.ended(run, 0, pruned=False)


def test_another_space_is_another_search(base, tmp_path):
    open_search(tmp_path / "search", base).take()
    with pytest.raises(InputError, match="holds a search with another space"):
        open_search(tmp_path / "search", base, space=["optim.lr=log(1e-5,1)"])
    with pytest.raises(InputError, match="--storage=nosuch://x: the study can't be opened"):
        open_search(tmp_path / "other", base, storage="nosuch://x")


def test_a_database_holds_the_study_too(base, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    run = open_search(tmp_path / "search", base, storage=storage).take()
    assert open_search(tmp_path / "search", base, storage=storage).take() == run
    assert not (tmp_path / "search" / "optuna.journal").exists()
