"""How memory and time of the assigners grow with the number of boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from boxmatch.bench.assign import bench_assign

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOXES = (1, 10, 50, 100, 200, 500, 1000)
"""Per picture."""


@dataclass(frozen=True)
class CurvePoint:
    """An assigner at one number of boxes; memory of the whole batch, time per picture."""

    assigner: str
    inputs: str
    batch_size: int
    boxes_per_image: int
    peak_mebibytes: float
    milliseconds: float
    cpu_milliseconds: float


def memory_curve(
    names: Sequence[str],
    *,
    batch_size: int = 16,
    boxes: Sequence[int] = BOXES,
    repeats: int = 3,
    device: str = "cpu",
) -> Iterator[CurvePoint]:
    """Measure every assigner at growing numbers of boxes; without the dense forms, which could not follow."""
    for row in bench_assign(names, (batch_size,), boxes, repeats=repeats, dense_boxes=0, device=device):
        yield CurvePoint(
            row.assigner,
            row.inputs,
            row.batch_size,
            row.boxes_per_image,
            row.peak_mebibytes,
            row.milliseconds,
            row.cpu_milliseconds,
        )


def draw_memory_curve(points: Sequence[CurvePoint]) -> "Figure":
    """One panel per assigner: memory and time as a share of those at the most boxes, beside a straight line.

    What grows faster than the number of boxes lies below the line.
    """
    from matplotlib.figure import Figure

    from boxmatch.visualize.palette import unit_color

    ordered = sorted(points, key=lambda point: (point.assigner, point.inputs, point.boxes_per_image))
    curves = [list(part) for _, part in groupby(ordered, key=lambda point: (point.assigner, point.inputs))]
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, curve in zip(axes, curves):
        boxes, last = [point.boxes_per_image for point in curve], curve[-1]
        memory = [point.peak_mebibytes / last.peak_mebibytes for point in curve]
        time = [point.cpu_milliseconds / last.cpu_milliseconds for point in curve]
        axis.plot([0, boxes[-1]], [0, 1], color="0.7", linestyle="--", label="as the boxes")
        axis.plot(boxes, memory, color=unit_color(0), marker=".", label="memory")
        axis.plot(boxes, time, color=unit_color(1), marker=".", label="time")
        axis.set_title(
            f"{last.assigner}, {last.inputs}\n{last.peak_mebibytes:.0f} MiB, "
            f"{last.cpu_milliseconds:.1f} ms per picture",
            fontsize=8,
        )
        axis.set_ylim(0, 1.05)
        axis.grid(alpha=0.25)
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    for axis in axes[: len(curves)][-columns:]:
        axis.tick_params(labelbottom=True)  # nothing stands below, even where the last row is not full
    axes[0].legend(fontsize=7)
    figure.supxlabel("boxes per picture", fontsize=9)
    figure.supylabel(f"share of that at {curves[0][-1].boxes_per_image} boxes", fontsize=9)
    return figure
