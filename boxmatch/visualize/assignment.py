"""Who learns what, drawn over the picture: grid, boxes, and every positive in the colour of the box it learns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

MARKERS = "o^sDvP*X<>hpd"
"""Marker of each anchor of a cell; they repeat after the last."""

_ALARM = tuple(part / 255 for part in ALARM)
_DIM = 0.45  # The picture is faded this far towards white, so that grid and markers stand out.
_MANY = 40  # With more boxes than this on a picture, class names would hide the markers.


def draw_assignment(
    image: Image.Image | UInt8[Tensor, "3 H W"],
    targets: Targets,
    assignment: Assignment,
    priors: Priors,
    *,
    picture: int = 0,
    level: int | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "",
    panel_inches: float = 6.0,
) -> "Figure":
    """The assignment of one picture as a matplotlib figure, one panel per level; save it with `figure.savefig(path)`.

    A positive is a marker at the centre of its prior's cell, in the colour of the box it learns; its shape is the anchor
    (anchors of a cell are drawn beside each other). A box with positives on other levels only is dotted, a box without any
    is thick, dashed and red with "no positive" beside it. Soft assignments are drawn the smaller the weaker.

    Args:
        image: the picture, in the pixels of `targets`.
        targets: boxes of the batch.
        assignment: what the assigner said about the batch.
        priors: what it was asked about.
        picture: position of the picture in the batch.
        level: draw this level only.
        class_names: names in the order of the labels, to be written at the boxes.
        title: headline.
        panel_inches: width of one panel.

    Raises:
        ValueError: there is no such level.
    """
    levels = list(range(max(len(priors.levels), 1))) if level is None else [level]
    if not all(0 <= number < max(len(priors.levels), 1) for number in levels):
        raise ValueError(f"expected a level in 0 .. {max(len(priors.levels), 1) - 1}, got {level}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    photo = np.asarray(as_picture(image))
    columns = min(len(levels), 3)
    rows = -(-len(levels) // columns)
    height = panel_inches * photo.shape[0] / photo.shape[1] + 0.5
    figure = Figure(figsize=(columns * panel_inches, rows * height + 1.3), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, number in zip(axes, levels):
        _draw_level(axis, photo, targets, assignment, priors, picture, number, class_names)
    for axis in axes[len(levels) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title)
    figure.legend(
        handles=_legend(priors, levels), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    return figure


def _draw_level(
    axis: "Axes",
    photo: np.ndarray,
    targets: Targets,
    assignment: Assignment,
    priors: Priors,
    picture: int,
    number: int,
    class_names: Sequence[str] | None,
) -> None:
    """One panel: faded picture, grid, boxes, positives."""
    height, width = photo.shape[:2]
    axis.imshow(
        (photo * (1 - _DIM) + 255 * _DIM).astype(np.uint8),
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_xticks([])
    axis.set_yticks([])
    if priors.levels:
        stride = priors.levels[number].stride
        axis.vlines(np.arange(0, width + 1, stride), 0, height, colors="black", alpha=0.22, linewidth=0.4)
        axis.hlines(np.arange(0, height + 1, stride), 0, width, colors="black", alpha=0.22, linewidth=0.4)
    mine = (assignment.image == picture) & (assignment.level == number)
    here = np.bincount(assignment.pairs.gt[mine].cpu().numpy(), minlength=len(targets))
    anywhere = assignment.stats().positives.cpu().numpy()
    rows = (targets.image == picture).nonzero().squeeze(1).tolist()
    for order, row in enumerate(rows):
        name = "" if class_names is None or len(rows) > _MANY else class_names[int(targets.labels[row])]
        _draw_box(axis, targets, row, order, int(here[row]), int(anywhere[row]), name, (width, height))
    _draw_positives(axis, assignment, priors, mine, number, {row: order for order, row in enumerate(rows)})
    _draw_ignored(axis, assignment, priors, picture, number)
    cells = priors.levels[number] if priors.levels else None
    head = (
        f"stride {cells.stride} px, {cells.width} × {cells.height} cells"
        if cells
        else "priors without a grid"
    )
    axis.set_title(
        f"{head}: {int(mine.sum())} positives for {int((here > 0).sum())} of {len(rows)} boxes", fontsize=9
    )


def _draw_box(
    axis: "Axes",
    targets: Targets,
    row: int,
    order: int,
    here: int,
    anywhere: int,
    name: str,
    picture: tuple[int, int],
) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = targets.boxes[row].tolist()
    starved = anywhere == 0 and not bool(targets.ignore[row])
    style: dict[str, Any] = {"edgecolor": unit_color(order), "linewidth": 1.6, "linestyle": "-"}
    if bool(targets.ignore[row]):
        style = {"edgecolor": "dimgrey", "linewidth": 1.0, "linestyle": "-", "hatch": "///"}
        name = ""
    elif starved:
        style = {"edgecolor": _ALARM, "linewidth": 3.2, "linestyle": (0, (3, 1.5))}
        name = "no positive"
    elif here == 0:
        style |= {"linewidth": 1.0, "linestyle": ":"}
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, zorder=5 if starved else 3, **style))
    if name and (here or starved):
        _write(axis, name, (x1, y1, x2, y2), picture, "white" if starved else "black", style["edgecolor"])


def _write(
    axis: "Axes",
    text: str,
    box: tuple[float, float, float, float],
    picture: tuple[int, int],
    letters: str,
    ground: Any,
) -> None:
    """Text above the box, or below its upper edge where the picture ends; pushed to the left at the right border."""
    x1, y1, x2, _ = box
    above = y1 > 0.03 * picture[1]
    right = x1 > 0.8 * picture[0]
    axis.text(
        min(x2, picture[0]) if right else max(x1, 0),
        y1 if above else max(y1, 0),
        text,
        fontsize=6,
        color=letters,
        ha="right" if right else "left",
        va="bottom" if above else "top",
        bbox={"facecolor": ground, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        zorder=8,
        clip_on=True,
    )


def _draw_positives(
    axis: "Axes", assignment: Assignment, priors: Priors, mine: Tensor, number: int, order: dict[int, int]
) -> None:
    """Markers at the cell centres: shape by anchor, colour by owner, size by strength."""
    prior, owner = assignment.pairs.prior[mine].cpu(), assignment.pairs.gt[mine].cpu().numpy()
    if not len(prior):
        return
    centers = priors.centers.cpu()[prior].numpy()
    anchors = priors.levels[number].anchors if priors.levels else 1
    stride = priors.levels[number].stride if priors.levels else 16
    first = sum(len(level) for level in priors.levels[:number])
    anchor = ((prior - first) % anchors).numpy()
    # Anchors of a cell share their centre: drawn side by side, within the middle two thirds of the cell.
    beside = (anchor - (anchors - 1) / 2) * stride * 0.66 / max(anchors, 1)
    strength = assignment.weight[mine].detach().cpu().numpy()
    strength = strength / max(float(strength.max()), 1e-12)
    colors = np.array([unit_color(order[int(row)]) for row in owner])
    span = axis.get_xlim()[1]
    points = 72 * axis.get_figure().get_figwidth() / max(len(axis.get_figure().axes[:3]), 1) * stride / span  # type: ignore[union-attr]
    size = float(np.clip(points * 0.55 / max(anchors, 1) ** 0.5, 2.0, 9.0)) ** 2
    for number_of_anchor in range(anchors):
        chosen = anchor == number_of_anchor
        axis.scatter(
            centers[chosen, 0] + beside[chosen],
            centers[chosen, 1],
            s=size * np.clip(strength[chosen], 0.15, 1.0),
            c=colors[chosen],
            marker=MARKERS[number_of_anchor % len(MARKERS)],
            edgecolors="black",
            linewidths=0.35,
            zorder=6,
        )


def _draw_ignored(axis: "Axes", assignment: Assignment, priors: Priors, picture: int, number: int) -> None:
    """Small grey crosses where a prior takes no part."""
    chosen = (assignment.ignored[picture] & (priors.level == number)).cpu()
    if bool(chosen.any()):
        centers = priors.centers.cpu()[chosen].numpy()
        axis.scatter(centers[:, 0], centers[:, 1], s=6, c="dimgrey", marker="x", linewidths=0.5, zorder=4)


def _legend(priors: Priors, levels: Sequence[int]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    counts = [level.anchors for level in priors.levels] or [1]
    for anchor in range(max(counts[number] for number in levels)):
        label = " / ".join(
            _anchor_size(priors, number, anchor) for number in levels if anchor < counts[number]
        )
        handles.append(
            Line2D([], [], linestyle="", marker=MARKERS[anchor % len(MARKERS)], color="lightgrey", markeredgecolor="black",
                   label=f"anchor {anchor}: {label}" if priors.levels else "prior")
        )  # fmt: skip
    return [
        *handles,
        Line2D([], [], color=unit_color(1), linewidth=1.6, label="box; its positives have its colour"),
        Line2D(
            [], [], color=unit_color(1), linewidth=1.0, linestyle=":", label="box learned on another level"
        ),
        Line2D(
            [], [], color=_ALARM, linewidth=3.2, linestyle=(0, (3, 1.5)), label="box without any positive"
        ),
        Patch(facecolor="none", edgecolor="dimgrey", hatch="///", label="ignore region"),
        Line2D(
            [], [], linestyle="", marker="x", color="dimgrey", markersize=4, label="prior that takes no part"
        ),
    ]


def _anchor_size(priors: Priors, number: int, anchor: int) -> str:
    """Width × height of an anchor; points have none."""
    first = sum(len(level) for level in priors.levels[:number])
    x1, y1, x2, y2 = priors.boxes[first + anchor].tolist()
    return f"{x2 - x1:g}×{y2 - y1:g}" if x2 > x1 else "point"
