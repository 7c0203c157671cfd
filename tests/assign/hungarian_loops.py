"""Costs of DETR's matching pair by pair in double precision, and the best matching by trying them all."""

import math
from itertools import permutations

from torch import Tensor


def costs(
    logits: Tensor,
    predicted: Tensor,
    boxes: Tensor,
    labels: Tensor,
    *,
    class_cost: str,
    weights: tuple[float, float, float],
    size: tuple[float, float],
) -> list[list[float]]:
    """Cost of each box (row) and query (column) of one picture.

    Args:
        weights: of class, L1 distance and GIoU.
        size: (height, width) of the picture.
    """
    return [
        [
            weights[0] * class_term(scores, label, class_cost)
            + weights[1] * distance(box, guess, size)
            - weights[2] * giou(box, guess)
            for scores, guess in zip(logits.double().tolist(), predicted.double().tolist())
        ]
        for box, label in zip(boxes.double().tolist(), labels.tolist())
    ]


def class_term(scores: list[float], label: int, class_cost: str) -> float:
    """Minus the softmax probability, or the focal loss of a positive less that of a negative."""
    if class_cost == "softmax":
        return -math.exp(scores[label]) / sum(math.exp(score) for score in scores)
    p = 1 / (1 + math.exp(-scores[label]))
    return 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)


def distance(box: list[float], guess: list[float], size: tuple[float, float]) -> float:
    """Sum of the differences of centre, width and height, as shares of the picture."""
    height, width = size

    def cxcywh(corners: list[float]) -> list[float]:
        x1, y1, x2, y2 = corners
        return [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]

    return sum(abs(a - b) for a, b in zip(cxcywh(box), cxcywh(guess)))


def giou(box: list[float], other: list[float]) -> float:
    """Of two boxes with an area."""
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    union = sum(areas) - width * height
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
    return width * height / union - (hull - union) / hull


def least_total(cost: list[list[float]]) -> float:
    """Total cost of the best matching of as many pairs as possible."""
    rows, columns = len(cost), len(cost[0]) if cost else 0
    if rows > columns:
        cost, rows, columns = [list(column) for column in zip(*cost)], columns, rows
    return min(sum(cost[r][c] for r, c in enumerate(order)) for order in permutations(range(columns), rows))
