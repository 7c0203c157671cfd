"""Heat maps of a soft assignment: how strongly each prior learns a box, and how strongly it is held down."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Targets
from boxmatch.visualize.detections import as_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FADE = 0.55
_COLORS = "viridis"  # even in brightness, and read by colour-blind eyes
_MARGIN = 0.35  # of the box's longer side, shown around it


def draw_weights(
    image: Image.Image | UInt8[Tensor, "3 H W"],
    targets: Targets,
    assignment: Assignment,
    priors: Priors,
    gt: int,
    *,
    extra: Mapping[str, Float[Tensor, "N"]] | None = None,
    title: str = "",
    panel_inches: float = 2.8,
) -> "Figure":
    """Heat maps of one box, one row per level with a pair, one column per number; save with `savefig`.

    Each pair is its prior's cell, in the colour of its number; a column has one scale for all levels.
    Columns: those of `extra`, then the positive weight and the negative weight. Outside the box a prior is
    background in full and stays blank. Several anchors of a cell share it side by side.

    Args:
        image: the picture of the box.
        targets: boxes of the batch.
        assignment: of the batch.
        priors: what the assigner was asked about.
        gt: row of the box in `targets`.
        extra: more numbers of every pair of the assignment, by the words above their column.
        title: headline.
        panel_inches: width of one panel.

    Raises:
        ValueError: there is no such box, or the priors lie on no grid.
    """
    if not 0 <= gt < len(targets):
        raise ValueError(f"expected a box in 0 .. {len(targets) - 1}, got {gt}")
    if not priors.levels:
        raise ValueError("expected priors on a grid, got free ones; heat maps need cells")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mine = (assignment.pairs.gt == gt).nonzero().squeeze(1)
    columns = {
        **(extra or {}),
        "positive weight": assignment.weight,
        "negative weight": assignment.neg_weight,
    }
    prior = assignment.pairs.prior[mine].cpu()
    levels = priors.level.cpu()[prior].unique().tolist() or [0]
    box = targets.boxes[gt].tolist()
    x1, y1, x2, y2 = window = _window(box)
    # The bar of the scale takes a fifth of the width.
    row_inches = 0.8 * panel_inches * min((y2 - y1) / (x2 - x1), 2.0) + 0.3
    size = (max(len(columns) * panel_inches, 5.0), len(levels) * row_inches + 0.8)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(levels), len(columns), squeeze=False)
    for axis in axes.flat:
        _background(axis, np.asarray(as_picture(image)), window, box)
    for number, (name, values) in enumerate(columns.items()):
        column = list(axes[:, number])
        heat = _heat(column, levels, priors, prior.numpy(), values[mine].detach().cpu().double().numpy())
        column[0].set_title(f"{name}\n{column[0].get_title()}", fontsize=8)
        figure.colorbar(heat, ax=column, shrink=0.8)
    figure.suptitle(title, fontsize=9)
    return figure


def _heat(
    column: "list[Axes]", levels: list[int], priors: Priors, prior: np.ndarray, values: np.ndarray
) -> Any:
    """Fill one column of panels, all on one scale."""
    top = (float(values.max()) if len(values) else 0.0) or 1.0
    of_prior = priors.level.cpu().numpy()[prior]
    for axis, level in zip(column, levels, strict=True):
        here = of_prior == level
        cells = _cells(axis, priors, prior[here], values[here], top)
        said = f"stride {priors.levels[level].stride} px, sum {values[here].sum():.3g}"
        axis.set_title(said if len(values) else "no place learns this box", fontsize=8)
    return cells


def _window(box: list[float]) -> tuple[float, float, float, float]:
    """The part of the picture that is shown: the box and something around it."""
    x1, y1, x2, y2 = box
    margin = _MARGIN * max(x2 - x1, y2 - y1)
    return x1 - margin, y1 - margin, x2 + margin, y2 + margin


def _background(
    axis: "Axes", photo: np.ndarray, window: tuple[float, float, float, float], box: list[float]
) -> None:
    from matplotlib.patches import Rectangle

    height, width = photo.shape[:2]
    faded = (photo * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
    axis.imshow(faded, extent=(0, width, height, 0), interpolation="nearest")
    axis.set(xlim=(window[0], window[2]), ylim=(window[3], window[1]), xticks=[], yticks=[])
    x1, y1, x2, y2 = box
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=1.8, zorder=5))


def _cells(axis: "Axes", priors: Priors, prior: np.ndarray, values: np.ndarray, top: float) -> Any:
    """One rectangle per pair, in the colour of its value between 0 and `top`."""
    from matplotlib.collections import PolyCollection

    centers = priors.centers.cpu().numpy()[prior]
    stride = priors.stride.cpu().numpy()[prior].astype(np.float64)
    lengths = np.array([len(level) for level in priors.levels])
    first, anchors = lengths.cumsum() - lengths, np.array([level.anchors for level in priors.levels])
    level = priors.level.cpu().numpy()[prior]
    anchor, count = (prior - first[level]) % anchors[level], anchors[level]
    left = centers[:, 0] - stride / 2 + anchor * stride / count
    upper, right, lower = centers[:, 1] - stride / 2, left + stride / count, centers[:, 1] + stride / 2
    corners = np.stack(
        [
            np.stack(corner, axis=1)
            for corner in ((left, upper), (right, upper), (right, lower), (left, lower))
        ],
        axis=1,
    )
    cells = PolyCollection(list(corners), array=values, cmap=_COLORS, alpha=0.8, edgecolors="none", zorder=3)
    cells.set_clim(0, top)
    axis.add_collection(cells, autolim=False)
    return cells
