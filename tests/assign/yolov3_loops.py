"""YOLOv3's rule once more, box by box and prior by prior in double precision, from its specification."""

from dataclasses import dataclass, field

import numpy as np
from drawn_problems import Box, iou

from boxmatch.priors import Priors


@dataclass
class Picture:
    """What the priors of one picture learn.

    Args:
        anchor: best prior of each box.
        owner: box whose coordinates each prior learns.
        classes: classes that each prior learns.
        ignored: priors that take no part.
    """

    anchor: list[int] = field(default_factory=list)
    owner: dict[int, int] = field(default_factory=dict)
    classes: dict[int, set[int]] = field(default_factory=dict)
    ignored: set[int] = field(default_factory=set)


def picture(
    priors: Priors,
    boxes: list[Box],
    labels: list[int],
    predicted: list[Box],
    ignore_iou: float,
    collision: str,
    class_collision: str,
) -> Picture:
    """All steps for one picture."""
    found = Picture()
    claims: dict[int, list[tuple[int, float]]] = {}
    for row, box in enumerate(boxes):
        prior, shape = best_anchor(priors, box)
        found.anchor.append(prior)
        claims.setdefault(prior, []).append((row, shape))
    for prior, rivals in claims.items():
        owner = winner(rivals, boxes, collision)
        found.owner[prior] = owner
        sharing = [row for row, _ in rivals] if class_collision == "union" else [owner]
        found.classes[prior] = {labels[row] for row in sharing}
    for prior, box in enumerate(predicted):
        if prior not in claims and any(iou(box, other) > ignore_iou for other in boxes):
            found.ignored.add(prior)
    return found


def best_anchor(priors: Priors, box: Box) -> tuple[int, float]:
    """The prior of best shape among those of the centre's cells, and its shape IoU."""
    width, height = box[2] - box[0], box[3] - box[1]
    best, best_shape, first = -1, -1.0, 0
    for level in priors.levels:
        column = min(max(int((box[0] + box[2]) / 2 // level.stride), 0), level.width - 1)
        row = min(max(int((box[1] + box[3]) / 2 // level.stride), 0), level.height - 1)
        for anchor in range(level.anchors):
            prior = first + (row * level.width + column) * level.anchors + anchor
            anchor_width, anchor_height = priors.wh[prior].tolist()
            inter = min(width, anchor_width) * min(height, anchor_height)
            shape = inter / (width * height + anchor_width * anchor_height - inter)
            if shape > best_shape:
                best, best_shape = prior, shape
        first += len(level)
    return best, best_shape


def winner(rivals: list[tuple[int, float]], boxes: list[Box], collision: str) -> int:
    """The row that owns the prior."""

    def size(row: int) -> float:
        x1, y1, x2, y2 = boxes[row]
        return (x2 - x1) * (y2 - y1)

    if collision == "last":
        return rivals[-1][0]
    if collision == "largest":
        return min(rivals, key=lambda rival: (-size(rival[0]), rival[0]))[0]
    if collision == "smallest":
        return min(rivals, key=lambda rival: (size(rival[0]), rival[0]))[0]
    return min(rivals, key=lambda rival: (-np.float32(rival[1]), rival[0]))[0]
