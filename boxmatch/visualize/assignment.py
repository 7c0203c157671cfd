"""Who learns what, drawn over the picture: grid, boxes, every positive in the colour of its box."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Targets
from boxmatch.visualize.detections import as_picture
from boxmatch.visualize.labels import short_name
from boxmatch.visualize.palette import ALARM, unit_color
from boxmatch.visualize.places import marker_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "o^sDvP*X<>hpd"
"""Marker of each anchor of a cell; they repeat after the last."""

_ALARM = tuple(part / 255 for part in ALARM)
_FADE = 0.45  # The picture is faded this far towards white, so that grid and markers stand out.
_LETTERS_PER_INCH = 11  # of a headline, so that a long one is broken instead of cut
_MANY = 40  # With more boxes than this on a picture, class names would hide the markers.
_STARVED: dict[str, Any] = {"edgecolor": _ALARM, "linewidth": 3.2, "linestyle": (0, (3, 1.5))}
_IGNORED: dict[str, Any] = {"edgecolor": "dimgrey", "linewidth": 1.0, "hatch": "///"}


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
    """The assignment of one picture as a figure, one panel per level; save it with `figure.savefig(path)`.

    A positive is a marker at the centre of its prior's cell, in the colour of the box it learns; its shape is
    the anchor (anchors of a cell are drawn side by side). A box with positives on other levels only is
    dotted, a box without any is thick, dashed and red, with "no positive" beside it. Weaker pairs of soft
    assignments are smaller.

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
    count = max(len(priors.levels), 1)
    numbers = list(range(count)) if level is None else [level]
    if level is not None and not 0 <= level < count:
        raise ValueError(f"expected a level in 0 .. {count - 1}, got {level}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    photo = np.asarray(as_picture(image))
    columns = min(len(numbers), 3)
    rows = -(-len(numbers) // columns)
    height = panel_inches * photo.shape[0] / photo.shape[1] + 0.4
    # Below one panel's width the legend would not fit.
    size = (max(columns * panel_inches, 7.0), rows * height + 1.0)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, number in zip(axes, numbers):
        panel = _Panel(axis, targets, assignment, priors, picture, number, panel_inches)
        panel.draw(photo, class_names)
    for axis in axes[len(numbers) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(fill(title, int(size[0] * _LETTERS_PER_INCH)))
    figure.legend(
        handles=_legend(priors, numbers),
        loc="outside lower center",
        ncols=3 if columns == 1 else 5,
        fontsize=8,
        frameon=False,
    )
    return figure


@dataclass(frozen=True)
class _Panel:
    """One level of one picture."""

    axis: "Axes"
    targets: Targets
    assignment: Assignment
    priors: Priors
    picture: int
    number: int
    inches: float

    def draw(self, photo: np.ndarray, class_names: Sequence[str] | None) -> None:
        """Faded picture, grid, boxes, positives, headline."""
        height, width = photo.shape[:2]
        faded = (photo * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
        self.axis.imshow(faded, extent=(0, width, height, 0), interpolation="nearest")
        self.axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        head = "priors without a grid"
        if self.priors.levels:
            level = self.priors.levels[self.number]
            grid: dict[str, Any] = {"colors": "black", "alpha": 0.22, "linewidth": 0.4}
            self.axis.vlines(np.arange(0, width + 1, level.stride), 0, height, **grid)
            self.axis.hlines(np.arange(0, height + 1, level.stride), 0, width, **grid)
            head = f"stride {level.stride} px, {level.width} × {level.height} cells"
        mine = (self.assignment.image == self.picture) & (self.assignment.level == self.number)
        here = np.bincount(self.assignment.pairs.gt[mine].cpu().numpy(), minlength=len(self.targets))
        anywhere = self.assignment.stats().positives.tolist()
        rows = (self.targets.image == self.picture).nonzero().squeeze(1).tolist()
        for order, row in enumerate(rows):
            named = class_names is not None and len(rows) <= _MANY
            name = short_name(class_names[int(self.targets.labels[row])]) if class_names and named else ""
            self._box(row, order, int(here[row]), anywhere[row], name, (width, height))
        self._positives(mine, {row: order for order, row in enumerate(rows)}, width)
        self._ignored()
        self.axis.set_title(
            f"{head}: {int(mine.sum())} positives for {int((here > 0).sum())} of {len(rows)} boxes",
            fontsize=9,
        )

    def _box(self, row: int, order: int, here: int, anywhere: int, name: str, size: tuple[int, int]) -> None:
        from matplotlib.patches import Rectangle

        x1, y1, x2, y2 = self.targets.boxes[row].tolist()
        ignored = bool(self.targets.ignore[row])
        starved = anywhere == 0 and not ignored
        style: dict[str, Any] = {"edgecolor": unit_color(order), "linewidth": 1.6}
        if ignored:
            style, name = _IGNORED, ""
        elif starved:
            style, name = _STARVED, "no positive"
        elif here == 0:
            style |= {"linewidth": 1.4, "linestyle": ":"}
        order_of_drawing = 5 if starved else 3
        self.axis.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, zorder=order_of_drawing, **style)
        )
        if name and (here or starved):
            self._write(name, (x1, y1, x2), size, "white" if starved else "black", style["edgecolor"])

    def _write(
        self, text: str, place: tuple[float, float, float], size: tuple[int, int], letters: str, ground: Any
    ) -> None:
        """Text above the box; below its upper edge, or to the left, where the picture ends."""
        x1, y1, x2 = place
        above, at_right = y1 > 0.04 * size[1], x1 > 0.8 * size[0]
        self.axis.text(
            min(x2, size[0]) if at_right else max(x1, 0),
            max(y1, 0),
            text,
            fontsize=6,
            color=letters,
            ha="right" if at_right else "left",
            va="bottom" if above else "top",
            bbox={"facecolor": ground, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            zorder=8,
            clip_on=True,
        )

    def _positives(self, mine: Tensor, order: dict[int, int], width: int) -> None:
        """Markers at the cell centres: shape by anchor, colour by owner, size by strength."""
        prior = self.assignment.pairs.prior[mine].cpu()
        if not len(prior):
            return
        level = self.priors.levels[self.number] if self.priors.levels else None
        anchors, stride = (level.anchors, level.stride) if level else (1, 16)
        anchor, places = marker_places(self.priors, prior)
        strength = self.assignment.weight[mine].detach().cpu().numpy()
        strength = np.clip(strength / max(float(strength.max()), 1e-12), 0.15, 1.0)
        owners = self.assignment.pairs.gt[mine].tolist()
        colors = np.array([unit_color(order[row]) for row in owners])
        cell_points = 72 * self.inches * stride / width
        size = float(np.clip(cell_points * 0.55 / anchors**0.5, 2.0, 9.0)) ** 2
        for number in range(anchors):
            chosen = anchor == number
            self.axis.scatter(
                places[chosen, 0],
                places[chosen, 1],
                s=size * strength[chosen],
                c=colors[chosen],
                marker=MARKERS[number % len(MARKERS)],
                edgecolors="black",
                linewidths=0.35,
                zorder=6,
            )

    def _ignored(self) -> None:
        """Small grey crosses where a prior takes no part."""
        chosen = (self.assignment.ignored[self.picture] & (self.priors.level == self.number)).cpu()
        if bool(chosen.any()):
            centers = self.priors.centers.cpu()[chosen].numpy()
            self.axis.scatter(
                centers[:, 0], centers[:, 1], s=6, c="dimgrey", marker="x", linewidths=0.5, zorder=4
            )


def _first(priors: Priors, number: int) -> int:
    """Index of the first prior of a level."""
    return sum(len(level) for level in priors.levels[:number])


def _legend(priors: Priors, numbers: Sequence[int]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    counts = [level.anchors for level in priors.levels] or [1]
    for anchor in range(max(counts[number] for number in numbers)):
        sizes = " / ".join(_anchor_size(priors, n, anchor) for n in numbers if anchor < counts[n])
        label = f"anchor {anchor}: {sizes}" if priors.levels else "prior"
        look: dict[str, Any] = {
            "marker": MARKERS[anchor % len(MARKERS)],
            "color": "lightgrey",
            "markeredgecolor": "black",
        }
        handles.append(Line2D([], [], linestyle="", label=label, **look))
    starved = {"color": _STARVED["edgecolor"], "linewidth": 3.2, "linestyle": _STARVED["linestyle"]}
    return [
        *handles,
        Line2D([], [], color=unit_color(1), linewidth=1.6, label="box; its positives have its colour"),
        Line2D([], [], color=unit_color(1), linewidth=1.4, linestyle=":", label="learned on another level"),
        Line2D([], [], label="box without any positive", **starved),
        Patch(facecolor="none", edgecolor="dimgrey", hatch="///", label="ignore region"),
        Line2D([], [], linestyle="", marker="x", color="dimgrey", markersize=4, label="prior without a part"),
    ]


def _anchor_size(priors: Priors, number: int, anchor: int) -> str:
    """Width × height of an anchor; points have none."""
    width, height = priors.wh[_first(priors, number) + anchor].tolist()
    return f"{width:g}×{height:g}" if width > 0 else "point"
