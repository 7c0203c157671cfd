"""Why a box got the priors it got: all its candidates, and what became of each."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from boxmatch.priors import Priors
from boxmatch.structures import REASONS, Assignment, Explanation, Targets
from boxmatch.visualize.detections import as_picture
from boxmatch.visualize.palette import ALARM
from boxmatch.visualize.places import marker_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FADE = 0.55
# Marker, colour and place in the stack of each reason; colours as in the palette (Okabe & Ito 2008).
_LOOKS: dict[str, tuple[str, str, int]] = {
    "kept": ("o", "#009e73", 9),
    "lost_to_gt": ("D", "#cc79a7", 8),
    "below_threshold": ("v", "#e69f00", 7),
    "not_topk": ("s", "#56b4e9", 6),
    "ignored": ("X", "#7f7f7f", 6),
    "wrong_level": ("P", "#946127", 5),
    "outside": (".", "#4d4d4d", 4),
}
_WORDS = {
    "kept": "learns this box",
    "lost_to_gt": "learns another box",
    "below_threshold": "score below the threshold",
    "not_topk": "not among the best of the box",
    "ignored": "takes no part",
    "wrong_level": "level is for other sizes",
    "outside": "outside of where it may lie",
}


def draw_explanation(
    image: Image.Image | UInt8[Tensor, "3 H W"],
    targets: Targets,
    assignment: Assignment,
    priors: Priors,
    gt: int,
    *,
    title: str = "",
    panel_inches: float = 4.2,
) -> "Figure":
    """What became of every candidate of one box, one panel per level that has any.

    The marker and its colour say why the candidate was kept or lost; its size how it scored among the
    candidates of the box. Anchors of a cell are drawn side by side.

    Args:
        image: the picture of the box.
        targets: boxes of the batch.
        assignment: made with `explain=True`.
        priors: what the assigner was asked about.
        gt: row of the box in `targets`.
        title: headline.
        panel_inches: width of one panel.

    Raises:
        ValueError: the assignment has no explanation, or there is no such box.
    """
    if assignment.explanation is None:
        raise ValueError("expected an assignment with an explanation; call the assigner with explain=True")
    if not 0 <= gt < len(targets):
        raise ValueError(f"expected a box in 0 .. {len(targets) - 1}, got {gt}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    story = assignment.explanation.of(gt)
    photo = np.asarray(as_picture(image))
    level = priors.level.cpu()[story.pairs.prior.cpu()]
    numbers = level.unique().tolist() or [0]
    columns = min(len(numbers), 3)
    rows = -(-len(numbers) // columns)
    height = panel_inches * photo.shape[0] / photo.shape[1] + 0.3
    size = (max(columns * panel_inches, 6.4), rows * height + 0.9)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, number in zip(axes, numbers):
        _draw_panel(axis, photo, targets.boxes[gt].tolist(), story, priors, number)
    for axis in axes[len(numbers) :]:
        axis.set_axis_off()
    figure.suptitle("\n".join(part for part in (title, _headline(story)) if part), fontsize=9)
    figure.legend(
        handles=_legend(story),
        loc="outside lower center",
        ncols=3 if columns == 1 else 4,
        fontsize=8,
        frameon=False,
    )
    return figure


def _headline(story: Explanation) -> str:
    limits = story.threshold[story.threshold.isfinite()]
    if not len(limits):
        return str(story)
    low, high = float(limits.min()), float(limits.max())
    return f"{story}; threshold {low:.3g}" + (f" to {high:.3g}" if high > low else "")


def _draw_panel(
    axis: "Axes", photo: np.ndarray, box: list[float], story: Explanation, priors: Priors, number: int
) -> None:
    from matplotlib.patches import Rectangle

    height, width = photo.shape[:2]
    faded = (photo * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
    axis.imshow(faded, extent=(0, width, height, 0), interpolation="nearest")
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    x1, y1, x2, y2 = box
    look = _box_look(story)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=look, linewidth=2, zorder=3))
    prior = story.pairs.prior.cpu()
    here = (priors.level.cpu()[prior] == number).numpy()
    _, places = marker_places(priors, prior)
    reason = story.reason.cpu().numpy()
    size = _sizes(story)
    for name, (marker, shade, above) in _LOOKS.items():
        chosen = here & (reason == REASONS.index(name))
        axis.scatter(
            places[chosen, 0],
            places[chosen, 1],
            s=size[chosen],
            c=shade,
            marker=marker,
            edgecolors="black" if marker != "." else "none",
            linewidths=0.3,
            zorder=above,
        )
    head = f"stride {priors.levels[number].stride} px" if priors.levels else "priors without a grid"
    kept = int((here & (reason == 0)).sum())
    axis.set_title(f"{head}: {kept} of {int(here.sum())} candidates kept", fontsize=8)


def _box_look(story: Explanation) -> tuple[float, float, float]:
    """Black, or the colour of alarm for a box that no prior learns."""
    red, green, blue = (0, 0, 0) if story.counts()["kept"] else ALARM
    return red / 255, green / 255, blue / 255


def _sizes(story: Explanation) -> np.ndarray:
    """Square points of each marker: 10 for the worst score of the box, 60 for the best."""
    score = story.score.cpu().double().numpy()
    known = np.isfinite(score)
    if not known.any():
        return np.full(len(score), 25.0)
    low, high = score[known].min(), score[known].max()
    share = np.where(known, (np.where(known, score, low) - low) / max(high - low, 1e-12), 0.3)
    return 10 + 50 * share


def _legend(story: Explanation) -> list[Any]:
    from matplotlib.lines import Line2D

    label = "the box" if story.counts()["kept"] else "the box, without any positive"
    handles: list[Any] = [Line2D([], [], color=_box_look(story), linewidth=2, label=label)]
    for name, count in story.counts().items():
        if count:
            marker, shade, _ = _LOOKS[name]
            label = f"{_WORDS[name]} ({count})"
            handles.append(
                Line2D([], [], linestyle="", marker=marker, color=shade, markeredgecolor="black", label=label)
            )
    return handles
