"""The curve of a run: loss and the task's metric over steps, as a picture or, without matplotlib, as a table."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vit_jax.weights.files import replacing

ROWS = 10


def write_curve(folder: Path, records: list[dict[str, Any]], metric: str, evaluation: str | None) -> str:
    """Return the Markdown of a curve, and write the picture that it shows, `curve.png`; "" without any records.

    Args:
        metric: shown beside the loss, such as "accuracy".
        evaluation: name of the evaluation beside training; None: there is none.
    """
    names = ["train/loss", f"train/{metric}"]
    names += [] if evaluation is None else [f"{evaluation}/loss", f"{evaluation}/{metric}"]
    series = {name: [(r["step"], r[name]) for r in records if r.get(name) is not None] for name in names}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    if find_spec("matplotlib") is None:
        return _table(series)
    _draw(folder / "curve.png", series, ("loss", metric))
    return "![loss and " + metric.replace("_", " ") + " over steps](curve.png)"


def _table(series: dict[str, list[tuple[int, float]]]) -> str:
    values = {name: dict(points) for name, points in series.items()}
    steps = sorted({step for points in values.values() for step in points})
    if evaluated := [name for name in values if not name.startswith("train/")]:
        steps = sorted({step for name in evaluated for step in values[name]})
    shown = sorted({steps[round(i * (len(steps) - 1) / max(ROWS - 1, 1))] for i in range(ROWS)})
    rows = [[f"{step:,}", *(f"{values[n][step]:.4f}" if step in values[n] else "-" for n in values)] for step in shown]
    lines = [["step", *values], ["---"] * (len(values) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _draw(path: Path, series: dict[str, list[tuple[int, float]]], metrics: tuple[str, str]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), metrics, strict=True):
        for name, points in series.items():
            part, _, own = name.partition("/")
            if own == metric:
                style = {"color": "0.45", "lw": 1} if part == "train" else {"color": "#1f5fa8", "marker": "o", "ms": 3}
                axes.plot(*zip(*points, strict=True), label=part, **style)
        axes.set_title(metric.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
