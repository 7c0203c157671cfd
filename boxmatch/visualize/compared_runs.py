"""Curves of several runs in one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxmatch.visualize.curves import curve_figure, read_rows, series
from boxmatch.visualize.palette import unit_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (("AP at IoU .50", "map_50"), ("AP at IoU .50 : .95", "map"))


def draw_compared_runs(runs: Sequence[Path | str], names: Sequence[str] | None = None) -> "Figure":
    """Mean average precision of several runs over the epochs, from `metrics.csv` of each; best run first.

    Args:
        runs: run folders, or their `metrics.csv`.
        names: what each is called in the legend; None takes the names of the folders.

    Raises:
        ValueError: there are no runs, a run has no evaluation yet, or `names` are not one per run.
    """
    if not runs:
        raise ValueError("expected one run or more to compare, got none")
    files = [path if path.suffix == ".csv" else path / "metrics.csv" for path in map(Path, runs)]
    names = [file.resolve().parent.name for file in files] if names is None else names
    if len(names) != len(files):
        raise ValueError(f"expected one name per run, got {len(names)} names for {len(files)} runs")
    tables = {name: read_rows(file) for name, file in zip(names, files, strict=True)}
    for name, file in zip(names, files, strict=True):
        if not series(tables[name], "map")[1]:
            raise ValueError(f"{file} holds no evaluation yet, so there is nothing to compare {name} by")
    # One colour per run in both panels, whatever their ranks there.
    shades = {name: unit_color(number) for number, name in enumerate(tables)}
    figure, axes = curve_figure(1, len(_PANELS))
    for axis, (head, column) in zip(axes, _PANELS, strict=True):
        curves = {name: series(rows, column) for name, rows in tables.items()}
        for name in sorted(curves, key=lambda name: -curves[name][1][-1]):
            epochs, values = curves[name]
            axis.plot(
                epochs,
                values,
                color=shades[name],
                linewidth=1.8,
                marker="o",
                label=f"{name} {values[-1]:.3f}",
            )
        axis.set_title(head)
        axis.set_xlabel("epoch")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.25)
        axis.legend(title="last evaluation", fontsize=8)
    return figure
