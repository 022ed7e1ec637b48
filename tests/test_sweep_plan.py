"""What a sweep runs: grids, draws, names, digests, and the plan that is printed."""

from pathlib import Path

import pytest

from vit_jax.config.files import load_sweep
from vit_jax.errors import InputError
from vit_jax.sweeps.folder import check_folder, working_on
from vit_jax.sweeps.plan import Base, as_texts, only, plan_runs
from vit_jax.sweeps.show import show_plan
from vit_jax.sweeps.space import drawn, grid, parse_grid, parse_space

CONFIG = """
from ml_collections import ConfigDict
from vit_jax.config import parse_arg
def get_config(arg=None):
    arg = parse_arg(arg, epochs=2, depth=1)
    c = ConfigDict()
    c.batch, c.image_size, c.channels, c.total = 64, 8, 1, f"{arg.epochs}ep"
    c.model = dict(name="Ti/2", width=32, depth=arg.depth, num_heads=2, mlp_dim=64)
    c.data = dict(name="digits")
    return c
def sweep(arg=None):
    for depth in (1, 2):
        for lr in (1e-3, 3e-4):
            yield {"config": f"depth={depth}", "optim.lr": lr, "data.val": "test[:50%]", "select": None}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    return Base(f"{path}:epochs=3", {"seed": "7"})


def test_grids_and_ranges():
    found = parse_grid(
        ["optim.lr=1e-3,3e-4", "seed=0:3", "image_size=(32, 48),64", "data.train=train[:5%],'a,b'", "x=-2:5:3"]
    )
    assert found == {
        "optim.lr": ["1e-3", "3e-4"],
        "seed": ["0", "1", "2"],
        "image_size": ["(32, 48)", "64"],
        "data.train": ["train[:5%]", "'a,b'"],
        "x": ["-2", "1", "4"],
    }
    assert list(grid({"a": ["1", "2"], "b": ["x", "y"]})) == [
        {"a": "1", "b": "x"},
        {"a": "1", "b": "y"},
        {"a": "2", "b": "x"},
        {"a": "2", "b": "y"},
    ]


def test_more_draws_add_to_fewer_and_stay_in_their_ranges():
    space = parse_space(
        "--random", ["optim.lr=log(1e-5,1e-2)", "model.depth=int(2,4)", "mixup=uniform(0,0.5)", "pool=gap,map"]
    )
    many = list(drawn(space, 200, seed=1))
    assert list(drawn(space, 3, seed=1)) == many[:3]
    assert list(drawn(space, 3, seed=2)) != many[:3]
    rates = sorted(float(each["optim.lr"]) for each in many)
    assert rates[0] >= 1e-5
    assert rates[-1] <= 1e-2
    assert 1e-4 < rates[100] < 1e-3  # The middle of the logarithm, not of the number.
    assert {each["model.depth"] for each in many} == {"2", "3", "4"}
    assert {each["pool"] for each in many} == {"gap", "map"}
    assert all(0 <= float(each["mixup"]) <= 0.5 for each in many)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["optim.lr"], "write KEY=VALUES"),
        (["seed=3:3"], "has no values; a range excludes its end"),
        (["seed=1,,2"], "has an empty value"),
        (["seed=1", "seed=2"], "seed is there twice"),
        (["optim.lr=log(0,1)"], "the first number must be below the second, both above 0"),
        (["optim.lr=log(1)"], "log needs two numbers"),
        (["model.depth=int(1,2.5)"], "int needs two whole numbers"),
        (["optim.lr=uniform(2,1)"], "the first number must be below the second"),
    ],
)
def test_what_is_no_grid_and_no_range_is_refused(items, message):
    with pytest.raises(InputError) as caught:
        parse_space("--space", items)
    assert message in str(caught.value)


def test_a_config_says_its_runs(base):
    runs = plan_runs(base, [as_texts(values) for values in load_sweep(base.spec)])
    assert [run.spec.rpartition("/")[2] for run in runs] == [f"small.py:epochs=3,depth={d}" for d in (1, 1, 2, 2)]
    assert [(run.config.model.depth, run.config.optim.lr, run.config.seed) for run in runs] == [
        (depth, lr, 7) for depth in (1, 2) for lr in (1e-3, 3e-4)
    ]
    assert runs[0].config.data.val == "test[:50%]"
    assert runs[0].config.select is None
    name, digest = runs[0].name.rsplit("-", 1)
    assert name == "depth=1,optim.lr=0.001,data.val=test_50_,select=None"
    assert len(digest) == 8
    *_, first, second, third, fourth, fifth = base.command(runs[0], Path("runs") / "first")
    assert first == "--workdir=runs/first"
    assert {second, third, fourth, fifth} == {
        "--config.seed=7",
        "--config.optim.lr=0.001",
        "--config.data.val=test[:50%]",
        "--config.select=None",
    }


def test_a_name_follows_what_a_run_learns(base):
    def name(**more):
        fixed = base.fixed | more
        return plan_runs(base._replace(fixed=fixed), [{"optim.lr": "1e-3"}])[0].name

    assert name() == name()
    # Where the data is and how it is computed is no other run.
    assert name(**{"data.path": "elsewhere", "accumulate": "2", "model.remat": "full"}) == name()
    assert name(batch="32") != name()
    # But it is one if the sweep itself varies it.
    remat = [{"model.remat": "none"}, {"model.remat": "full"}]
    assert len({run.name for run in plan_runs(base, remat)}) == 2


@pytest.mark.parametrize(
    ("each", "message"),
    [
        ([], "has no runs"),
        ([{"optim.lr": "1e-3"}, {"optim.lr": "0.001"}], "two runs of the sweep are equal"),
        ([{"optim.weight_deca": "1"}], "config.optim.weight_deca: no such key; did you mean 'weight_decay'"),
        ([{"optim.lr": "fast"}], "config.optim.lr='fast': must be float"),
        ([{"seed": "1"}], "--config.seed=7: the sweep itself sets seed; leave it out"),
    ],
)
def test_a_wrong_run_is_refused_before_any_starts(base, each, message):
    with pytest.raises(InputError) as caught:
        plan_runs(base, each)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_some_runs(base):
    runs = plan_runs(base, grid(parse_grid(["optim.lr=1e-3,3e-4", "batch=32,64"])))
    assert [run.overrides for run in only(runs, {"optim.lr": ["0.001"]})] == [run.overrides for run in runs[:2]]
    with pytest.raises(InputError, match="does not vary 'optim.l'; did you mean 'optim.lr'"):
        only(runs, {"optim.l": ["1"]})
    with pytest.raises(InputError, match="--only batch=16: no run has"):
        only(runs, {"batch": ["16"]})


def test_the_plan_says_what_each_run_needs(base, tmp_path, capsys):
    runs = plan_runs(base, [{"optim.lr": "1e-3"}, {"model.depth": "2"}, {"model.name": "Ti/3"}])
    show_plan(runs, tmp_path / "sweep")
    head, columns, *lines, left, time = capsys.readouterr().out.splitlines()
    assert head.endswith("small.py: 3 runs, which set optim.lr, model.depth, model.name")
    assert columns.split() == ["run", "steps", "parameters", "FLOPs", "state", "GiB", "so", "far"]
    sizes = [line.split()[1:4] for line in lines[:2]]
    # 1,437 pictures in batches of 64, three epochs.
    assert [size[0] for size in sizes] == ["68", "68"]
    assert 1.5 < float(sizes[1][2]) / float(sizes[0][2]) < 2
    assert "can't run: image size 8x8 is not divisible by the patch size 3" in lines[2]
    assert left.startswith("3 to run, 0 done")
    assert time.startswith("time: not known before a run is done")
    assert not (tmp_path / "sweep").exists()


def test_a_folder_belongs_to_one_sweep(base, tmp_path):
    folder = tmp_path / "sweep"
    with working_on(folder, base), pytest.raises(InputError, match="is already running by process"):
        working_on(folder, base).__enter__()
    check_folder(folder, base._replace(fixed=base.fixed | {"data.path": "moved"}))
    with pytest.raises(InputError, match="holds another sweep \\(seed: 7 -> 8\\); choose another workdir"):
        check_folder(folder, base._replace(fixed={"seed": "8"}))
    with pytest.raises(InputError, match="holds another sweep \\(config: .* -> other.py\\)"):
        check_folder(folder, base._replace(spec="other.py"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    with pytest.raises(InputError, match="is a run directory"):
        check_folder(tmp_path / "run", base)
