"""Make the table and the page of a sweep again, or of any runs: python -m vit_jax.sweeps.report DIR...

DIR is a sweep's folder, or a run directory. results.csv, results.parquet and report.html are written into it; of
several, into the folder of --out=FILE.html. The page is one file that needs no server and no network.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vit_jax.errors import InputError, Parser, run_command
from vit_jax.sweeps.groups import chosen_metric, groups, selected
from vit_jax.sweeps.report_data import label, page_data
from vit_jax.sweeps.table import STATUSES, Row, differing, metric_names, read_runs, write_table
from vit_jax.tasks import is_lower_better
from vit_jax.weights.files import replacing

PAGE = Path(__file__).with_name("page")


def write_report(folders: Path | Sequence[Path], out: Path | None = None, metric: str | None = None) -> str:
    """Write the table and the page of the runs in some folders, and return a line for people.

    Args:
        out: the page; None: `report.html` in the folder, of which there is only one then.
        metric: that runs are compared by, but not one of the test split; None: the one they select their best by.

    Raises:
        InputError: there are no runs, none has the metric, plotly is missing, or the files can't be written.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    if out is None and len(folders) > 1:
        raise InputError("several folders have no one place for the page; say where it goes with --out=FILE.html")
    out = folders[0] / "report.html" if out is None else out
    rows = read_runs(folders)
    title = ", ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    metric = chosen_metric(rows, metric)
    write_table(out.parent, rows)
    page = render(rows, metric, title, out.parent)
    with replacing(out) as part:
        part.write_text(page, encoding="utf-8", errors="replace")
    return f"{counted(rows)}; see {out}, and {out.with_name('results.csv')} for the table"


def render(rows: Sequence[Row], metric: str, title: str, folder: Path) -> str:
    """Return the page that compares runs by a metric, as HTML for a file in `folder`.

    Raises:
        InputError: plotly is missing.
    """
    if importlib.util.find_spec("plotly") is None:
        raise InputError("the page of a report needs plotly: pip install 'vit_jax[sweeps]'")
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    names = ("table.js", "charts.js", "main.js")
    return environment.get_template("page.html").render(
        title=title,
        summary=_summary(rows),
        metric=metric,
        lower=is_lower_better(metric),
        selected=_selected(rows, metric),
        failed=[row for row in rows if row.status == "failed"],
        style=Markup((PAGE / "page.css").read_text()),
        plotly=Markup(get_plotlyjs()),
        script=Markup("\n".join((PAGE / name).read_text() for name in names)),
        data=Markup(as_script(page_data(rows, metric, folder))),
    )


def as_script(data: Any) -> str:
    """Return data as JSON that can stand in a <script>, whatever names are in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def counted(rows: Sequence[Row]) -> str:
    """Return how many runs there are of each status, in words."""
    count = Counter(row.status for row in rows)
    parts = [f"{count[status]} {status}" for status in STATUSES if count[status]]
    return f"{len(rows)} {'run' if len(rows) == 1 else 'runs'}: {', '.join(parts)}"


def _summary(rows: Sequence[Row]) -> str:
    together = groups(rows)
    seeds = max(len(group.rows) for group in together)
    specs = dict.fromkeys(row.spec for row in rows if row.spec is not None)
    parts = [counted(rows)]
    if specs:
        parts.append(f"of {', '.join(list(specs)[:3])}" + f" and {len(specs) - 3} more" * (len(specs) > 3))
    keys = [key for key in differing(rows) if key != "seed"]
    if keys:
        parts.append(
            f"{len(together)} settings of {', '.join(keys[:6])}" + f" and {len(keys) - 6} more" * (len(keys) > 6)
        )
    if seeds > 1:
        parts.append(f"up to {seeds} seeds of each")
    if spent := sum(row.counts["device_seconds"] or 0.0 for row in rows):
        parts.append(f"{spent / 3600:,.1f} device-hours" if spent >= 3600 else f"{spent:,.0f} device-seconds")
    return "; ".join(parts)


def _selected(rows: Sequence[Row], metric: str) -> dict[str, Any] | None:
    group = selected(rows, metric)
    if group is None:
        return None
    test = f"test/{metric.removeprefix('best ').partition('/')[2]}"
    steps = sorted({row.metrics["test/step"] for row in group.rows if row.metrics.get("test/step") is not None})
    return {
        "label": label(group.values),
        "found": _figure(group.mean(metric), group.spread(metric)),
        "number": len(group.numbers(metric)),
        "of": len(group.rows),
        "names": [row.run for row in group.rows],
        "test": test if test in metric_names(rows) and group.numbers(test) else None,
        "tested": _figure(group.mean(test), group.spread(test)),
        "steps": f"step{'s' * (len(steps) > 1)} {', '.join(f'{step:,.0f}' for step in steps)}" if steps else "",
    }


def _figure(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the report."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a sweep's folder, or a run directory")
    parser.add_argument("--metric", metavar="NAME", help="to compare runs by, such as val/accuracy; default: their own")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default: DIR/report.html")
    args = parser.parse_args(argv)
    print(write_report(args.folders, args.out, args.metric))


if __name__ == "__main__":
    run_command(main)
