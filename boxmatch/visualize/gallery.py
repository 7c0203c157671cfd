"""Several assigners on one picture, side by side: what a change of the rule changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Targets
from boxmatch.visualize.detections import as_picture
from boxmatch.visualize.palette import ALARM, unit_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALARM = tuple(part / 255 for part in ALARM)
_FADE = 0.55  # More than in a picture of one assignment: the markers of all levels are on one panel.
_DOT_CELLS = 0.36  # Diameter of a positive in cells of its level: large dots are coarse levels.
_FAINTEST = 0.12


@dataclass(frozen=True)
class GalleryEntry:
    """One panel: what an assigner said about the batch, and the priors it was asked about."""

    title: str
    assignment: Assignment
    priors: Priors


def draw_gallery(
    image: Image.Image | UInt8[Tensor, "3 H W"],
    targets: Targets,
    entries: Sequence[GalleryEntry],
    *,
    picture: int = 0,
    columns: int = 4,
    panel_inches: float = 3.2,
) -> "Figure":
    """One panel per assigner, all levels on it; save the figure with `figure.savefig(path)`.

    A positive is a dot in the colour of the box it learns. The diameter of the dot follows the stride of its
    level, its opacity the weight of the pair; anchors of a cell share one place. A box without any positive
    is thick, dashed and red.

    Args:
        image: the picture, in the pixels of `targets`.
        targets: boxes of the batch.
        entries: the panels, in reading order.
        picture: position of the picture in the batch.
        columns: panels per row.
        panel_inches: width of a panel.

    Raises:
        ValueError: there are no entries.
    """
    if not entries:
        raise ValueError("expected one entry or more for the gallery, got none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    photo = np.asarray(as_picture(image))
    columns = min(columns, len(entries))
    rows = -(-len(entries) // columns)
    height = panel_inches * photo.shape[0] / photo.shape[1] + 0.45
    figure = Figure(figsize=(columns * panel_inches, rows * height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, entry in zip(axes, entries):
        _draw_panel(axis, photo, targets, entry, picture, panel_inches)
    for axis in axes[len(entries) :]:
        axis.set_axis_off()
    return figure


def _draw_panel(
    axis: "Axes", photo: np.ndarray, targets: Targets, entry: GalleryEntry, picture: int, inches: float
) -> None:
    height, width = photo.shape[:2]
    faded = (photo * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
    axis.imshow(faded, extent=(0, width, height, 0), interpolation="nearest")
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    stats = entry.assignment.stats()
    rows = (targets.image == picture).nonzero().squeeze(1).tolist()
    starved = set(stats.starved.tolist())
    for order, row in enumerate(rows):
        _draw_box(axis, targets, row, unit_color(order), row in starved)
    _draw_positives(axis, entry, picture, {row: order for order, row in enumerate(rows)}, width, inches)
    positives = int(stats.positives[rows].sum())
    missing = len(starved.intersection(rows))
    without = f", {missing} without" if missing else ""
    axis.set_title(f"{entry.title}\n{positives} positives{without}", fontsize=8)


def _draw_box(axis: "Axes", targets: Targets, row: int, shade: tuple, starved: bool) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = targets.boxes[row].tolist()
    look: dict = {"edgecolor": shade, "linewidth": 1.4}
    if bool(targets.ignore[row]):
        look = {"edgecolor": "dimgrey", "linewidth": 1.0, "hatch": "///"}
    elif starved:
        look = {"edgecolor": _ALARM, "linewidth": 2.6, "linestyle": (0, (3, 1.5))}
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, zorder=3, **look))


def _draw_positives(
    axis: "Axes", entry: GalleryEntry, picture: int, order: dict[int, int], width: int, inches: float
) -> None:
    """Dots at the centres of the priors; coarse levels below, so that small dots are seen."""
    assignment, priors = entry.assignment, entry.priors
    mine = (assignment.image == picture).nonzero().squeeze(1)
    prior = assignment.pairs.prior[mine].cpu()
    coarse_first = priors.stride.cpu()[prior].argsort(descending=True, stable=True)
    mine, prior = mine.cpu()[coarse_first], prior[coarse_first]
    if not len(mine):
        return
    weight = assignment.weight.detach().cpu()[mine].numpy()
    opacity = np.clip(weight / max(float(weight.max()), 1e-12), _FAINTEST, 1.0)
    owners = assignment.pairs.gt.cpu()[mine].tolist()
    shades = np.array([(*unit_color(order[row]), alpha) for row, alpha in zip(owners, opacity)])
    # A prior on no grid has no stride: a dot of 6 px stands for it.
    stride = priors.stride.cpu()[prior].numpy() if priors.levels else np.full(len(prior), 6 / _DOT_CELLS)
    diameter = 72 * inches * _DOT_CELLS * stride / width
    places = priors.centers.cpu()[prior].numpy()
    edges = [(0.0, 0.0, 0.0, float(alpha)) for alpha in opacity]
    axis.scatter(
        places[:, 0],
        places[:, 1],
        s=np.maximum(diameter, 1.5) ** 2,
        c=shades,
        edgecolors=edges,
        linewidths=0.3,
        zorder=6,
    )
