"""Figures of the studies: from a sweep's results to a PNG, with the means and laws that they print."""

import csv

import numpy as np
import pytest
from figures import main
from plots import power_law
from plots.results import mean_of, model_name

from vit_jax.errors import InputError

FOLD = {"48_4": 0.0, "R5+64_4": 0.02, "BiT-R8x1": 0.05}


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def results(**columns):
    """Return the rows of three seeds, of which the second has the mean and the others lie 0.01 beside it."""
    accuracies = {name: columns.pop(name) for name in list(columns) if "/" in name}
    return [
        {"run": columns.get("run", "base"), "status": "done"}
        | {name.replace("__", "."): value for name, value in columns.items() if name != "run"}
        | {name: value + 0.01 * (seed - 1) for name, value in accuracies.items()}
        | {"seed": seed}
        for seed in range(3)
    ]


def drawn(tmp_path, capsys, figure, rows, *options):
    out = tmp_path / "figure.png"
    main([figure, write(tmp_path / "results.csv", rows), f"--out={out}", *options])
    content = out.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 900
    return capsys.readouterr().out


def test_accuracy_by_the_size_of_the_training_set(tmp_path, capsys):
    rows = []
    for model, more in FOLD.items():
        for fraction in (0.1, 1.0):
            accuracies = {"few/accuracy_5shot": 0.3 + more, "test/accuracy": 0.4 + 0.2 * fraction + more}
            rows += results(run=f"model={model},data.fraction={fraction}", data__fraction=fraction, **accuracies)
    rows[-1]["status"] = "failed"
    told = drawn(tmp_path, capsys, "data_scale", rows, "--pictures=45_000")
    assert "warning: 1 of 18 runs are not done, and left out" in told
    assert "ViT-48/4     test/accuracy          4,500: 0.4200 45,000: 0.6000" in told
    assert "R5+64/4      few/accuracy_5shot     4,500: 0.3200 45,000: 0.3200" in told


def test_the_law_of_accuracy_over_compute(tmp_path, capsys):
    rows = []
    for model, more in FOLD.items():
        for total in (1, 4, 16):
            flops = 1e12 * total
            accuracies = {"test/accuracy": 1 - (0.8 - more) * total**-0.1}
            rows += results(
                run=f"model={model},total={total}st",
                total=f"{total}st",
                flops=flops,
                device_seconds=flops / 1e10,
                **accuracies,
            )
    told = drawn(tmp_path, capsys, "compute_scale", rows)
    assert told.count("error ~ cost ** -0.1") == 6


def test_a_law_is_found_again_and_its_interval_covers_it():
    rng = np.random.default_rng(0)
    costs = np.geomspace(1, 1000, 8)
    groups = [0.9 * cost**-0.12 * np.exp(rng.normal(0, 0.01, 5)) for cost in costs]
    law = power_law.fit(costs, groups)
    low, high = law.interval
    assert law.exponent == pytest.approx(0.12, abs=0.005)
    assert low < 0.12 < high < low + 0.01
    assert (law.low <= law.errors).all()
    assert (law.errors <= law.high).all()
    # A point that another beats is no part of the law.
    assert power_law.fit([*costs, 2000], [*groups, [5.0] * 5]).exponent == law.exponent
    assert power_law.fit(costs[:2], groups[:2]) is None
    assert power_law.front([1, 2, 2, 3], [0.5, 0.4, 0.3, 0.3]) == [0, 2]


def test_positions_by_kind_and_place(tmp_path, capsys):
    places = [("none", "stem"), ("learned", "blocks"), ("relative", "stem")]
    rows = [
        row
        for i, (kind, place) in enumerate(places)
        for row in results(model__position=kind, model__position_at=place, **{"test/accuracy": 0.5 + i / 10})
    ]
    told = drawn(tmp_path, capsys, "positions", rows)
    # Half the width of the interval: 4.303, Student's t of two degrees, times 0.01 / sqrt(3).
    assert "learned, 1-D       every block          0.6000  0.5752 to 0.6248" in told
    assert "relative bias      every block, shared  0.7000" in told


def test_resolutions_as_they_are_and_fine_tuned(tmp_path, capsys):
    rows = [
        row
        for size in (16, 32)
        for total in ("1st", "150st")
        for row in results(model__position="none", image_size=size, total=total, **{"test/accuracy": size / 100})
    ]
    told = drawn(tmp_path, capsys, "resolution", rows, "--trained=32")
    assert "none                   as it is    16: 0.1600 32: 0.3200" in told
    assert "none                   fine-tuned  16: 0.1600 32: 0.3200" in told


def test_roads_by_what_they_cost(tmp_path, capsys):
    rows = [
        row
        for road in ("full", "local_3")
        for total in (100, 400)
        for row in results(
            run=f"road={road},total={total}st",
            total=f"{total}st",
            flops=1e10 * total,
            device_seconds=total / 10,
            **{"test/accuracy": 0.4 + total / 4000},
        )
    ]
    told = drawn(tmp_path, capsys, "roads", rows)
    assert "local:3     4e+12 FLOPs     40 s  0.5000  0.4752 to 0.5248" in told


def test_few_labels_by_what_came_before(tmp_path, capsys):
    rows = [
        row | {"init": init}
        for init, more in (("", 0.0), ("/runs/task=masked_patches,epochs=24-0a1b", 0.1))
        for fraction in (0.01, 0.1)
        for row in results(data__fraction=fraction, **{"test/accuracy": 0.3 + fraction + more})
    ]
    told = drawn(tmp_path, capsys, "labels", rows)
    assert "from scratch    0.01: 0.3100 (0.2852 to 0.3348) 0.1: 0.4000" in told
    assert "masked_patches  0.01: 0.4100" in told


def test_the_best_run_so_far_of_each_kind_of_search(tmp_path, capsys):
    found = {"tpe-0": (0.5, 0.7, 0.6), "tpe-1": (0.7, 0.6, 0.9), "random-0": (0.1, 0.2, 0.3)}
    rows = [
        {"run": f"{search}{i}", "status": "done", "val/accuracy": accuracy, "ended": f"2026-11-26T04:0{i}:00+00:00"}
        | {"directory": f"{search}/{i}"}
        for search, accuracies in found.items()
        for i, accuracy in enumerate(accuracies)
    ]
    told = drawn(tmp_path, capsys, "search", rows[::-1])  # Ordered by when they ended, not by their place.
    assert "tpe     1: 0.6000 3: 0.8000" in told
    assert "random  1: 0.1000 3: 0.3000" in told
    with pytest.raises(InputError, match="no folders named tpe-SEED or random-SEED"):
        drawn(tmp_path, capsys, "search", [rows[0] | {"directory": "sweep/0"}])


def test_a_single_run_has_no_interval():
    mean = mean_of([{"test/accuracy": "0.49"}], "test/accuracy")
    assert mean.value == 0.49
    assert np.isnan([mean.low, mean.high]).all()
    assert model_name({"run": "data.fraction=1.0,model=R26+S_32,seed=0-0123abcd"}) == "R26+S/32"


def test_mistakes_end_in_one_line(tmp_path):
    rows = results(model__position="none", **{"test/accuracy": 0.5})
    good, out = write(tmp_path / "good.csv", rows), f"--out={tmp_path}/figure.png"
    placed = [row | {"model.position_at": "stem"} for row in rows]
    failed = write(tmp_path / "failed.csv", [row | {"status": "failed"} for row in placed])
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"\xff\xfe\x00")
    empty = write(tmp_path / "empty.csv", [row | {"test/accuracy": ""} for row in placed])
    for arguments, message in (
        (["positions", str(tmp_path / "none.csv"), out], "can't be read"),
        (["positions", str(bad), out], "can't be read"),
        (["positions", good, out], "has no column 'model.position_at'; take the results.csv of this study's sweep"),
        (["data_scale", good, out], "has no column 'data.fraction'"),
        (["positions", failed, out], "none of its 3 runs is done; continue the sweep first"),
        (["positions", empty, out], "neither 'test/accuracy' nor 'val/accuracy'"),
        (["resolution", good, out, "--trained=0"], "must be a whole number above 0"),
        (["quickstart", str(tmp_path)], "is not a run directory|run.json"),
        (["positions", good], "positions: say where the figure goes, --out=PNG"),
        (["positions", good, out, "--trained=32"], "--trained: means nothing for positions"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            main(arguments)
        assert "\n" not in str(caught.value)
