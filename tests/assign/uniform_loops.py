"""Uniform matching once more, as the original lists its claims, in double precision."""

from dataclasses import dataclass, field

import numpy as np
from drawn_problems import Box, iou

from boxmatch.priors import Priors


@dataclass
class Picture:
    """What the priors of one picture learn.

    Args:
        rows: how often each (box, prior) counts in the box term.
        owner: box whose class each prior learns.
        ignored: priors that take no part.
    """

    rows: dict[tuple[int, int], int] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)
    ignored: set[int] = field(default_factory=set)


def picture(
    priors: Priors,
    boxes: list[Box],
    predicted: list[Box],
    topk: int,
    positive_iou: float,
    ignore_iou: float,
    collision: str,
) -> Picture:
    """All steps for one picture."""
    found = Picture()
    anchors = priors.boxes.tolist()
    near = [nearest(box, predicted, topk) for box in boxes]
    near_anchors = [nearest(box, anchors, topk) for box in boxes]
    claims: list[tuple[int, int, float]] = []  # box, prior, distance
    for rank in range(min(topk, len(anchors))):
        claims += [(row, *near[row][rank]) for row in range(len(boxes))]
        claims += [(row, *near_anchors[row][rank]) for row in range(len(boxes))]
    owning: dict[int, int] = {}
    for row, prior, _ in claims:
        owning[prior] = row
    if collision == "nearest":
        for prior in owning:
            rivals = [(np.float32(distance), row) for row, other, distance in claims if other == prior]
            owning[prior] = min(rivals)[1]
    for prior, box in enumerate(predicted):
        if prior not in owning and any(iou(box, other) > ignore_iou for other in boxes):
            found.ignored.add(prior)
    for prior, row in owning.items():
        if iou(anchors[prior], boxes[row]) < positive_iou:
            found.ignored.add(prior)
        else:
            found.owner[prior] = row
    for row, prior, _ in claims:
        if prior in found.owner and iou(anchors[prior], boxes[row]) >= positive_iou:
            found.rows[row, prior] = found.rows.get((row, prior), 0) + 1
    return found


def nearest(box: Box, others: list[Box], topk: int) -> list[tuple[int, float]]:
    """Number and L1 distance of the nearest, equal distances by the lowest number."""
    far = [
        (sum(abs(a - b) for a, b in zip(center_and_size(box), center_and_size(other))), number)
        for number, other in enumerate(others)
    ]
    return [(number, distance) for distance, number in sorted(far)[:topk]]


def center_and_size(box: Box) -> Box:
    """Centre x and y, width and height."""
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
