"""Curves of a run, read from the files in its folder."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxmatch.visualize.palette import unit_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(run: Path | str) -> "Figure":
    """Losses, mean average precision and learning rate over the epochs, from `metrics.csv` of the run.

    Raises:
        ValueError: the run has no `metrics.csv`, or it has no rows yet.
    """
    rows = read_rows(Path(run) / "metrics.csv")
    columns = list(rows[0])
    panels: dict[str, list[str]] = {
        "loss": [name for name in columns if name.startswith("loss")],
        "average precision": [name for name in ("map_50", "map", "map_75") if name in columns],
        "learning rate": [name for name in ("learning_rate",) if name in columns],
    }
    panels = {head: names for head, names in panels.items() if any(series(rows, name)[0] for name in names)}
    figure, axes = curve_figure(1, max(len(panels), 1))
    for axis, (head, names) in zip(axes, panels.items()):
        for number, name in enumerate(names):
            epochs, values = series(rows, name)
            if values:
                marker = "o" if len(values) < 3 else ""
                shade = unit_color(number)
                axis.plot(epochs, values, color=shade, linewidth=1.8, marker=marker, label=_title(name))
        axis.set_title(head)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        if head == "average precision":
            axis.set_ylim(0, 1)
        elif head == "loss":
            axis.set_ylim(bottom=0)
        if len(names) > 1:
            axis.legend(fontsize=8)
    figure.suptitle(Path(run).resolve().name)
    return figure


def draw_pr_curves(run: Path | str, which: str = "best") -> "Figure":
    """Precision over recall at IoU 0.5, one line per class, from `pr_curves.json` of the run.

    Args:
        run: run folder.
        which: `best` or `last` evaluation.

    Raises:
        ValueError: the run has not been evaluated yet.
    """
    path = Path(run) / "pr_curves.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: the run has not been evaluated yet")
    curves: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))[which]
    figure, (axis,) = curve_figure(1, 1)
    draw_precision(axis, curves["recall"], curves["precision"])
    axis.set_title(f"{Path(run).resolve().name}: {which} evaluation, IoU 0.5")
    return figure


def draw_precision(axis: "Axes", recall: Sequence[float], precision: Mapping[str, Sequence[float]]) -> None:
    """One precision curve per class with its average precision in the legend, worst classes last."""
    means = {name: sum(values) / max(len(values), 1) for name, values in precision.items()}
    ranked = sorted(precision, key=lambda name: -means[name])
    # Twenty lines are what a legend can carry: with more classes, the ten best and the ten worst.
    shown = ranked if len(ranked) <= 20 else ranked[:10] + ranked[-10:]
    for number, name in enumerate(ranked):
        if name in shown:
            axis.plot(
                recall,
                precision[name],
                color=unit_color(number),
                linewidth=1.8,
                label=f"{name} {means[name]:.3f}",
            )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.grid(alpha=0.25)
    if shown:
        axis.legend(title="AP at IoU 0.5", fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axis.text(0.5, 0.5, "no boxes to find", ha="center", va="center")


def curve_figure(rows: int, columns: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(5.2 * columns + (1.5 if columns == 1 else 0), 4.2 * rows), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).reshape(-1))


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: the run has no finished epoch")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} has no rows: the run has no finished epoch")
    return rows


def series(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Epochs (counted from 1) and values of a column, empty cells left out."""
    points = [(float(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name) not in (None, "")]
    return [point[0] for point in points], [point[1] for point in points]


def _title(column: str) -> str:
    names = {
        "map": "AP at IoU .50 : .95",
        "map_50": "AP at IoU .50",
        "map_75": "AP at IoU .75",
        "loss": "sum",
    }
    return names.get(column, column.removeprefix("loss_").replace("_", " "))
