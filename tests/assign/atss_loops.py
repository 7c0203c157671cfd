"""ATSS and Dynamic ATSS as loops in double precision, from the specification, and problems for them."""

import math
from dataclasses import dataclass

from hypothesis import strategies as st

from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Targets

ROUNDING = 1e-5
"""Scores this near to a threshold or to each other may fall either way in single precision."""

Box = list[float]


@dataclass
class Candidate:
    """What one box sees in one prior: IoU of the prior and of its prediction, pixels inside the box."""

    prior: int
    iou: float
    predicted_iou: float
    depth: float


def iou(box: Box, other: Box) -> float:
    """Of two xyxy boxes; two without area have 0."""
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [max(0.0, x2 - x1) * max(0.0, y2 - y1) for x1, y1, x2, y2 in (box, other)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def candidates(priors: Priors, box: Box, predicted: list[Box], topk: int) -> list[Candidate]:
    """Per level the `topk` times anchors per cell nearest priors, all of a smaller level."""
    middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    sizes = [(len(level), level.anchors) for level in priors.levels] or [(len(priors), 1)]
    found, first = [], 0
    for size, anchors in sizes:
        far = [(math.dist(priors.centers[p].tolist(), middle), p) for p in range(first, first + size)]
        for _, prior in sorted(far)[: topk * anchors]:
            x, y = priors.centers[prior].tolist()
            found.append(
                Candidate(
                    prior,
                    iou(priors.boxes[prior].tolist(), box),
                    iou(predicted[prior], box),
                    min(x - box[0], y - box[1], box[2] - x, box[3] - y),
                )
            )
        first += size
    return found


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: list[float]) -> float:
    """Standard deviation with n - 1; 0 for one value."""
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / max(len(values) - 1, 1))


def score_and_threshold(found: list[Candidate], rule: str) -> tuple[list[float], float]:
    """By the rule's name: atss, sum_of_stds, std_of_sum."""
    own, predicted = [one.iou for one in found], [one.predicted_iou for one in found]
    if rule == "atss":
        return own, mean(own) + deviation(own)
    both = [first + second for first, second in zip(own, predicted)]
    if rule == "std_of_sum":
        return both, mean(both) + deviation(both)
    return both, mean(own) + mean(predicted) + deviation(own) + deviation(predicted)


def check(
    assignment: Assignment,
    priors: Priors,
    targets: Targets,
    predicted: list[Box],
    rule: str,
    topk: int,
    margin: float,
) -> None:
    """Compare every candidate's score, every threshold and every owner with the loops."""
    told, at = assignment.explanation, 0
    claims: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
    for gt, (box, image) in enumerate(zip(targets.boxes.tolist(), targets.image.tolist())):
        found = sorted(candidates(priors, box, predicted, topk), key=lambda one: one.prior)
        scores, threshold = score_and_threshold(found, rule)
        for one, score in zip(found, scores):
            assert (told.pairs.gt[at], told.pairs.prior[at]) == (gt, one.prior)
            assert abs(told.score[at] - score) < ROUNDING
            assert abs(told.threshold[at] - threshold) < ROUNDING
            at += 1
            if score > threshold - ROUNDING and one.depth > margin:
                claims.setdefault((image, one.prior), []).append((gt, score, threshold))
    assert at == len(told)
    owner = assignment.gt_index().tolist()
    for image in range(targets.batch_size):
        for prior in range(len(priors)):
            _check_owner(owner[image][prior], claims.get((image, prior), []), targets)


def _check_owner(owner: int, claims: list[tuple[int, float, float]], targets: Targets) -> None:
    """The highest score wins, equal boxes by the lowest row; a claim on the threshold may fail."""
    certain = [score for _, score, threshold in claims if score > threshold + ROUNDING]
    if owner < 0:
        assert not certain
        return
    score = {gt: score for gt, score, _ in claims}[owner]
    assert score > max(certain, default=0.0) - ROUNDING
    box = targets.boxes[owner].tolist()
    assert not any(gt < owner and targets.boxes[gt].tolist() == box for gt, _, _ in claims)


@st.composite
def grids(draw: st.DrawFn) -> tuple:
    """One to three levels from 1 × 1 to 6 × 5 cells: anchors (one to three per cell), strides, sizes."""
    strides = draw(st.sampled_from([(8,), (8, 16), (4, 8, 32)]))
    sizes = [(draw(st.integers(1, 6)), draw(st.integers(1, 5))) for _ in strides]
    sides = st.integers(3, 90)
    anchors = [[(draw(sides), draw(sides)) for _ in range(draw(st.integers(1, 3)))] for _ in strides]
    return anchors, strides, sizes


@st.composite
def batches(draw: st.DrawFn) -> list:
    """Up to three images with up to four boxes inside, across and outside the picture, or twice."""
    quarter = st.integers(-40, 200).map(lambda n: n / 4)  # exact in both precisions
    side = st.one_of(st.integers(1, 8), st.integers(8, 600)).map(lambda n: n / 4)
    images = []
    for _ in range(draw(st.integers(0, 3))):
        corners = draw(st.lists(st.tuples(quarter, quarter, side, side), max_size=4))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in corners]
        if boxes and draw(st.booleans()):
            boxes.append(boxes[0])
        images.append(boxes)
    return images


def make_priors(grid: tuple, on_grid: bool = True) -> Priors:
    """Priors of a drawn grid, or the same boxes with nothing known of it."""
    anchors, strides, sizes = grid
    priors = AnchorGrid(anchors, strides)(sizes, "cpu")
    return priors if on_grid else Priors.from_boxes(priors.boxes)


def make_targets(images: list) -> Targets:
    """One class."""
    return Targets.from_lists(images, [[0] * len(boxes) for boxes in images])
