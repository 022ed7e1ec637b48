"""The page of runs: what is in it and how it is read again, without a browser."""

import json
import math
from html.parser import HTMLParser

import pytest

from tests.sweeps import TESTED, add_sweep, ended, make_run, started
from vit_jax.errors import InputError
from vit_jax.sweeps import report
from vit_jax.sweeps.report import main, write_report
from vit_jax.sweeps.report_data import axis, banded, curves, front, page_data, place, thinned
from vit_jax.sweeps.table import read_runs


class Page(HTMLParser):
    """The text of a page outside scripts, its scripts by type, and whatever it would load or link to."""

    def __init__(self, html):
        super().__init__()
        self.text, self.scripts, self.linked, self._inside = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "style"):
            self._inside = dict(attributes).get("type", tag)
        self.linked += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, text):
        if self._inside is None:
            self.text.append(" ".join(text.split()))
        else:
            self.scripts.append((self._inside, text))

    @property
    def words(self):
        return " ".join(filter(None, self.text))

    @property
    def data(self):
        (found,) = [text for kind, text in self.scripts if kind == "application/json"]
        return json.loads(found)


def make_sweep(folder):
    """Two rates with two seeds each, tested; one run that failed with a nasty line."""
    found = {("0.001", 0): 0.5, ("0.001", 1): 0.625, ("0.1", 0): 0.25, ("0.1", 1): 0.75}
    for (lr, seed), accuracy in found.items():
        overrides = {"optim.lr": lr, "seed": str(seed)}
        run = make_run(folder / f"lr={lr},seed={seed}", overrides, accuracy, config=TESTED, test=accuracy - 0.125)
        add_sweep(run, overrides, started(), ended(0))
    add_sweep(
        folder / "broken", {"optim.lr": "0.01", "seed": "0"}, started(), ended(2, "error: </script><b>&amp; \u2028")
    )
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("runs") / "rates")


@pytest.fixture(scope="module")
def page(sweep):
    write_report(sweep)
    return Page((sweep / "report.html").read_text())


def test_the_page_is_one_file_with_plotly_once_and_loads_nothing(sweep, page):
    assert page.linked == ["data:,"]
    assert [kind for kind, _ in page.scripts] == ["style", "application/json", "script", "script"]
    assert sum(len(text) > 1_000_000 for _, text in page.scripts) == 1
    assert "default-src 'none'" in (sweep / "report.html").read_text()
    assert sorted(path.name for path in sweep.iterdir() if path.is_file()) == [
        "report.html",
        "results.csv",
        "results.parquet",
    ]


def test_what_the_page_says(page):
    assert "5 runs: 4 done, 1 failed; of tiny.py; 3 settings of optim.lr; up to 2 seeds of each; 80 device-seconds" in (
        page.words
    )
    assert "optim.lr=0.001 : val/accuracy 0.5625 ± 0.0884 (higher is better), the mean of 2 of 2 seeds" in page.words
    assert "broken : exit 2, error: </script><b>&amp;" in page.words


def test_the_test_split_is_shown_once_and_only_of_the_selected(page):
    assert page.words.count("test/accuracy") == 1
    assert "test/accuracy 0.4375 ± 0.0884 , with the weights of step 10." in page.words
    assert "test/" not in json.dumps({key: value for key, value in page.data.items() if key != "runs"})
    assert not [name for run in page.data["runs"] for name in run["curves"] if name not in ("train", "val")]


def test_the_data_of_the_page(page):
    data = page.data
    assert (data["metric"], data["lower"], data["selected"]) == ("val/accuracy", False, 1)
    names = [column["name"] for column in data["columns"]]
    assert names[:5] == ["optim.lr", "seed", "val/accuracy", "best val/accuracy", "val/loss"]
    broken, run, *_ = data["runs"]
    assert (broken["run"], broken["status"], broken["curves"]) == ("broken", "failed", {})
    assert broken["lines"] == ["error: </script><b>&amp; \u2028"]
    assert dict(zip(names, run["cells"], strict=True))["best val/accuracy"] == 0.5625
    assert run["command"] == ("python -m vit_jax.train --config=tiny.py --config.optim.lr=0.001 --config.seed=0")
    assert run["href"] == "lr%3D0.001%2Cseed%3D0"
    assert run["curves"]["val"] == {
        "step": [10, 20],
        "seconds": [5.0, 10.0],
        "accuracy": [0.5625, 0.5],
        "loss": [0.4375, 0.5],
    }
    assert run["curves"]["train"]["loss"] == [0.4, 0.2, 0.13333, 0.1]
    _, small, large = data["groups"]
    assert (small["label"], small["runs"], small["done"], small["mean"]) == ("optim.lr=0.001", [1, 2], 2, 0.5625)
    assert small["costs"] == {"flops": 20_000.0, "device_seconds": 20.0, "seconds": 10.0}
    rate, seed = data["keys"]
    assert (rate["key"], rate["scale"], rate["ticks"]) == ("optim.lr", "log", [[0.001, "0.001"], [0.1, "0.1"]])
    assert rate["bands"] == ["0.001", "0.1"]  # The failed run has no curve to color.
    assert [run["bands"] for run in data["runs"]] == [[None, None], [0, 0], [0, 1], [1, 0], [1, 1]]
    assert [line["groups"] for line in rate["lines"]] == [[1, 0, 2]]
    assert [cost["front"] for cost in data["costs"]] == [[1], [1], [1]]
    assert large["places"] == [0.1, None]


def test_numbers_that_span_a_decade_are_logarithmic():
    assert axis([4, 2, 3])["scale"] == "linear"
    assert axis([1e-3, 1e-2]) == {"scale": "log", "ticks": [[0.001, "0.001"], [0.01, "0.01"]]}
    many = axis([10 ** (i / 10) for i in range(-45, -5)])
    assert [text for _, text in many["ticks"]] == ["0.0001", "0.001", "0.01", "0.1"]
    assert [text for _, text in axis([i / 100 for i in range(3, 33)])["ticks"]] == ["0.05", "0.1", "0.2"]
    drawn = axis([1.651e-05, 0.0008825, 0.001475, 0.004486])
    assert [text for _, text in drawn["ticks"]] == ["0.0001", "0.001"]
    assert axis([0.1, 0.11, 0.5]) == {"scale": "linear", "ticks": None}
    assert axis(list(range(10))) == {"scale": "linear", "ticks": None}


def test_what_is_no_number_is_a_category_in_natural_order():
    assert [text for _, text in axis(["100ep", "30ep", "3ep"])["ticks"]] == ["3ep", "30ep", "100ep"]
    found = axis([0.9999, None, 0.99])
    assert found == {"scale": "category", "ticks": [[0, "none"], [1, "0.99"], [2, "0.9999"]]}
    assert [place(found, value) for value in (0.99, None, 0.5)] == [1, 0, None]
    # A logarithm has no place for 0, but a decade above it is no linear axis either.
    assert axis([0.0, 1e-4, 1e-2])["scale"] == "category"
    assert axis([True, False])["scale"] == "category"
    assert axis([math.inf, 1.0])["scale"] == "category"


def test_curves_have_few_colors():
    assert banded([3, 1, 3]) == (["1", "3"], [1, 0, 1])
    labels, numbers = banded([float(i) for i in range(80)])
    assert labels[:2] == ["0 to 9", "10 to 19"]
    assert numbers == [i // 10 for i in range(80)]
    labels, numbers = banded([f"model{i}" for i in range(20)] + ["model7"])
    assert labels == ["model7", *(f"model{i}" for i in range(6)), "others"]
    assert (numbers[7], numbers[19]) == (0, 7)


def test_no_point_of_a_front_is_beaten_by_a_cheaper_one():
    points = [(3.0, 0.7), (1.0, 0.5), (2.0, 0.4), (None, 0.9), (3.0, 0.8), (4.0, 0.8), (2.0, None)]
    assert front(points, lower=False) == [1, 4]
    assert front(points, lower=True) == [1, 2]


def test_lines_join_groups_that_differ_in_one_key(tmp_path):
    for depth in (2, 4):
        for lr in ("0.1", "0.001"):
            make_run(tmp_path / f"{lr},{depth}", {"optim.lr": lr, "model.depth": str(depth)})
    data = page_data(read_runs([tmp_path]), "val/accuracy", tmp_path)
    labels = [group["label"] for group in data["groups"]]
    found = {
        key["key"]: {line["label"]: [labels[i] for i in line["groups"]] for line in key["lines"]}
        for key in data["keys"]
    }
    assert found["model.depth"] == {
        f"optim.lr={lr}": [f"model.depth={depth}, optim.lr={lr}" for depth in (2, 4)] for lr in ("0.001", "0.1")
    }
    assert found["optim.lr"]["model.depth=2"] == ["model.depth=2, optim.lr=0.001", "model.depth=2, optim.lr=0.1"]


def test_long_curves_are_thinned_but_keep_their_ends():
    records = [{"step": step, "train/loss": 1 / step, "train/seconds": None} for step in range(1, 1001)]
    records[-1] |= {"val/accuracy": 0.5, "val/count": 3, "data/bad": 0}
    found = curves(records, 50)
    assert found["val"] == {"step": [1000], "seconds": [None], "accuracy": [0.5]}
    assert len(found["train"]["step"]) == len(set(found["train"]["step"])) == 50
    assert (found["train"]["step"][0], found["train"]["loss"][-1]) == (1, 0.001)
    assert thinned([1, 2, 3], 3) == [1, 2, 3]


def test_names_cannot_break_the_page(tmp_path):
    name = "</script><script>alert(1)</script>\"'& \udcff"
    make_run(tmp_path / "runs" / name.replace("/", "_"), {"init": "'</script>&lt;'"}, 0.5)
    make_run(tmp_path / "runs" / "other", {"init": "'<!--'"}, 0.5)
    write_report(tmp_path / "runs", tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert len(page.scripts) == 4
    first = page.data["runs"][0]
    assert first["run"] == name.replace("/", "_").replace("\udcff", "?")
    assert first["cells"][0] == "</script>&lt;"
    assert first["href"].startswith("runs/%3C_script%3E")
    assert first["command"] is None


def test_runs_in_progress_and_runs_of_no_sweep(tmp_path):
    add_sweep(tmp_path / "waiting", {"seed": "3"})
    line = write_report(tmp_path)
    assert line == f"1 run: 1 unfinished; see {tmp_path / 'report.html'}, and {tmp_path / 'results.csv'} for the table"
    page = Page((tmp_path / "report.html").read_text())
    assert "No run that is done has train/loss yet." in page.words
    assert page.data["selected"] is None
    run = make_run(tmp_path / "alone", size=None, steps=10)
    write_report(run)
    page = Page((run / "report.html").read_text())
    assert (page.data["runs"][0]["href"], page.data["runs"][0]["status"], page.data["keys"]) == (".", "unfinished", [])


def test_the_command(sweep, tmp_path, capsys):
    out = tmp_path / "page.html"
    other = make_run(tmp_path / "other", {"optim.lr": "0.01"}, 0.875)
    main([str(sweep), str(other), f"--out={out}", "--metric=val/loss"])
    assert capsys.readouterr().out.startswith("6 runs: 5 done, 1 failed; see ")
    data = Page(out.read_text()).data
    assert (data["metric"], data["lower"]) == ("val/loss", True)
    assert {run["href"] for run in data["runs"]} > {"other"}
    assert (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{sweep}/none"], "'{sweep}/none' is not a folder with runs"),
        (["{sweep}", "--metric=val/acuracy"], "no run has it; they have 'val/accuracy', 'val/loss', "),
        (["{sweep}", "--metric=test/accuracy"], "runs are not selected by their test split"),
        (["{sweep}", "{sweep}/broken"], "say where it goes with --out=FILE.html"),
        (["{sweep}", "--out={sweep}/none/page.html"], "there is no folder '{sweep}/none'"),
        ([], "required: DIR; see --help"),
    ],
)
def test_mistakes_are_one_line(sweep, arguments, message):
    with pytest.raises(InputError) as caught:
        main([argument.format(sweep=sweep) for argument in arguments])
    assert message.format(sweep=sweep) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_plotly_there_is_still_a_table(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs plotly: pip install 'vit_jax\[sweeps\]'$"):
        write_report(tmp_path)
    assert (tmp_path / "results.csv").exists()
    assert not (tmp_path / "report.html").exists()
