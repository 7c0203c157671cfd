"""The three grid rules once more, as slow loops in double precision, straight from the specification."""

import math

from boxmatch.priors import Priors
from boxmatch.structures import Targets

EPS = 1e-6


def candidates(
    method: str, priors: Priors, targets: Targets
) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """For each (image, prior) the boxes that could own it with their IoU, also under the threshold."""
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    boxes = targets.boxes.double().tolist()
    images = targets.image.tolist()
    index = 0
    for level in priors.levels:
        eps = EPS * level.height * level.width * level.stride**2
        for row in range(level.height):
            for column in range(level.width):
                for _ in range(level.anchors):
                    prior = priors.boxes[index].double().tolist()
                    for gt, box in enumerate(boxes):
                        if method == "all_grid" or _near(method, box, row, column, level):
                            iou = _iou(box, prior, eps, moved=method != "all_grid")
                            found.setdefault((images[gt], index), []).append((gt, iou))
                    index += 1
    return found


def _near(method, box, row, column, level) -> bool:
    reach = 0 if method == "single_grid" else 1
    home_column = min(max(math.floor((box[0] + box[2]) / 2 / level.stride), 0), level.width - 1)
    home_row = min(max(math.floor((box[1] + box[3]) / 2 / level.stride), 0), level.height - 1)
    return abs(home_column - column) <= reach and abs(home_row - row) <= reach


def _iou(box, prior, eps, moved) -> float:
    width, height = box[2] - box[0], box[3] - box[1]
    prior_width, prior_height = prior[2] - prior[0], prior[3] - prior[1]
    if moved:
        inter = min(width, prior_width) * min(height, prior_height)
    else:
        inter = max(min(box[2], prior[2]) - max(box[0], prior[0]), 0) * max(
            min(box[3], prior[3]) - max(box[1], prior[1]), 0
        )
    return inter / (width * height + prior_width * prior_height - inter + eps)
