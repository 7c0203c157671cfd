"""The rule of YOLOv5 once more, box by box and anchor by anchor, from its specification."""

import math

from drawn_problems import Box

from boxmatch.priors import Priors


def pairs(priors: Priors, boxes: list[Box], ratio: float, offset: float) -> list[tuple[int, int]]:
    """(box, prior) of all matches, box by box in the order of the priors."""
    found = set()
    for row, box in enumerate(boxes):
        first = 0
        for level in priors.levels:
            x = (box[0] + box[2]) / 2 / level.stride
            y = (box[1] + box[3]) / 2 / level.stride
            home = (cell(x, level.width), cell(y, level.height))
            cells = {home}
            if fraction(x) < offset and x > 1:
                cells.add((cell(x - offset, level.width), home[1]))
            if fraction(y) < offset and y > 1:
                cells.add((home[0], cell(y - offset, level.height)))
            if fraction(level.width - x) < offset and level.width - x > 1:
                cells.add((cell(x + offset, level.width), home[1]))
            if fraction(level.height - y) < offset and level.height - y > 1:
                cells.add((home[0], cell(y + offset, level.height)))
            for anchor in range(level.anchors):
                if worst_ratio(box, priors.wh[first + anchor].tolist()) < ratio:
                    for column, line in cells:
                        found.add((row, first + (line * level.width + column) * level.anchors + anchor))
            first += len(level)
    return sorted(found)


def shape_iou(box: Box, wh: list[float]) -> float:
    """IoU of the shapes."""
    width, height = box[2] - box[0], box[3] - box[1]
    inter = min(width, wh[0]) * min(height, wh[1])
    return inter / (width * height + wh[0] * wh[1] - inter)


def worst_ratio(box: Box, wh: list[float]) -> float:
    """Of the greater to the smaller side, over both axes."""
    sides = (box[2] - box[0], box[3] - box[1])
    return max(max(side / other, other / side) for side, other in zip(sides, wh))


def cell(place: float, size: int) -> int:
    """The cell of a place, the nearest one if it lies outside."""
    return min(max(math.floor(place), 0), size - 1)


def fraction(place: float) -> float:
    """What is left after the whole cells, in [0, 1)."""
    return place - math.floor(place)
