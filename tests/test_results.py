"""Results of evaluations in files: one JSON object each, and figures that cost no run."""

import json

import pytest

from vit_jax.evaluators import Results
from vit_jax.runs.results import Figures, write_results

NAN = float("nan")


def test_an_evaluation_is_one_object_and_what_is_not_finite_is_null(tmp_path):
    results = Results(
        {"val/loss": NAN, "val/count": 3, "seen/loss": 0.5},
        {"val/classes": [{"label": "cät", "accuracy": NAN}, {"label": "dog", "accuracy": 1.0}], "val/empty": []},
        {"val/curve": lambda: b"a picture"},
    )
    write_results(tmp_path / "evaluation", 12, results)
    files = {path.name: path.read_bytes() for path in (tmp_path / "evaluation").iterdir()}
    assert files.keys() == {"val-12.json", "seen-12.json", "val-curve-12.png"}
    assert files["val-curve-12.png"] == b"a picture"
    assert json.loads(files["seen-12.json"]) == {"step": 12, "loss": 0.5}
    rows = [{"label": "cät", "accuracy": None}, {"label": "dog", "accuracy": 1.0}]
    assert json.loads(files["val-12.json"]) == {"step": 12, "loss": None, "count": 3, "classes": rows, "empty": []}
    # One line a row, for people and for diff.
    assert b'\n  {"label": "dog", "accuracy": 1.0}\n' in files["val-12.json"]


def broken():
    raise ValueError("no such\ncolor")


def test_a_figure_that_cannot_be_drawn_is_one_line(tmp_path, capsys):
    write_results(tmp_path, 3, Results({}, {}, {"val/bad": broken, "val/good": lambda: b"png"}))
    assert capsys.readouterr().out == "warning: val-bad-3.png could not be drawn (ValueError: no such color)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["val-good-3.png"]


def test_a_file_is_whole_or_the_old_one(tmp_path):
    write_results(tmp_path, 1, Results({"val/loss": 1.0}, {}, {}))
    (tmp_path / "val-1.json.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_results(tmp_path, 1, Results({"val/loss": 2.0}, {}, {}))
    assert json.loads((tmp_path / "val-1.json").read_text())["loss"] == 1.0


def test_figures_are_drawn_once_a_minute_and_at_the_end(tmp_path, monkeypatch):
    now, drawn = 100.0, []
    monkeypatch.setattr("vit_jax.runs.results.time.monotonic", lambda: now)

    def results(step):
        return Results({}, {}, {"val/curve": lambda: drawn.append(step) or b"png"})

    figures = Figures(tmp_path)
    for step, seconds in enumerate([10, 10, 45, 10, 10, 10], start=1):
        now += seconds
        figures.add(step, results(step))
    assert drawn == [3]
    figures.finish()
    figures.finish()
    assert drawn == [3, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"val-curve-3.png", "val-curve-6.png"}
