"""Task-aligned assignment as loops in double precision, from the specification."""

import math
from dataclasses import dataclass

from decisions import Decisions
from drawn_problems import Box, iou
from dynamic_k_loops import sigmoid

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

LEAST = 2.0**-126
"""The smallest normal number of single precision."""


@dataclass(frozen=True)
class Rule:
    """The options by their names."""

    alpha: float = 0.5
    beta: float = 6.0
    topk: int = 10
    topk2: int | None = None
    similarity: str = "iou"
    min_side: float | tuple[float, float] = 0.0
    max_distance: float = math.inf
    topk_first: bool = False
    rescue: bool = False
    rivals: str = "selecting"


@dataclass(frozen=True)
class Match:
    """What one prior is to one box."""

    prior: int
    alignment: float
    overlap: float
    admitted: bool


def similarity(kind: str, box: Box, other: Box) -> float:
    """Of a ground truth and a prediction."""
    size, other_size = ([corners[2] - corners[0], corners[3] - corners[1]] for corners in (box, other))
    apart = [(other[axis] + other[axis + 2] - box[axis] - box[axis + 2]) / 2 for axis in (0, 1)]
    if kind == "nwd":
        other_size = [max(0.0, side) for side in other_size]
        shape = sum((a - b) ** 2 for a, b in zip(size, other_size)) / 4
        return math.exp(-math.sqrt(sum(x * x for x in apart) + shape) / 12.8)
    overlap = iou(box, other)
    if kind == "iou":
        return overlap
    hull = [max(box[axis + 2], other[axis + 2]) - min(box[axis], other[axis]) for axis in (0, 1)]
    diagonal = sum(side * side for side in hull)
    angles = [math.atan2(*(max(0.0, side) for side in sides)) for sides in (size, other_size)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = v / (1 - overlap + v) if v else 0.0
    return overlap - sum(x * x for x in apart) / diagonal - alpha * v


def admitted(rule: Rule, priors: Priors, prior: int, box: Box) -> bool:
    """Whether the centre is inside the box, small sides enlarged, and within reach of its own sides."""
    point = priors.centers[prior].tolist()
    below, size = rule.min_side if isinstance(rule.min_side, tuple) else (rule.min_side, rule.min_side)
    for axis in (0, 1):
        side, middle = box[axis + 2] - box[axis], (box[axis + 2] + box[axis]) / 2
        half = (size if side < below else side) / 2
        if not middle - half < point[axis] < middle + half:
            return False
    distances = [point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]]
    return max(distances) <= rule.max_distance * float(priors.stride[prior])


def matches(
    rule: Rule, priors: Priors, targets: Targets, predictions: Predictions, gt: int, decisions: Decisions
) -> list[Match]:
    """Every prior's."""
    box, image, label = targets.boxes[gt].tolist(), int(targets.image[gt]), int(targets.labels[gt])
    found = []
    for prior in range(len(priors)):
        overlap = max(0.0, similarity(rule.similarity, box, predictions.boxes[image, prior].tolist()))
        chance = sigmoid(float(predictions.logits[image, prior, label]))
        if predictions.quality is not None:
            chance *= sigmoid(float(predictions.quality[image, prior]))
        alignment = chance**rule.alpha * overlap**rule.beta
        # Small differences of large numbers have no relative precision, and no number is halfway to none.
        decisions.doubtful |= rule.similarity == "ciou" and 0 < overlap < 1e-3
        decisions.doubtful |= LEAST / 2 < alignment < 2 * LEAST
        found.append(Match(prior, alignment, overlap, admitted(rule, priors, prior, box)))
    return found


def best(found: list[Match], k: int, decisions: Decisions) -> list[Match]:
    """The k best aligned, less those without alignment."""
    order = decisions.lowest([(-match.alignment, place) for place, match in enumerate(found)], k)
    return [found[place] for place in order if found[place].alignment >= LEAST]


def select(rule: Rule, found: list[Match], decisions: Decisions) -> list[Match]:
    """What a box wants."""
    if rule.topk_first:
        chosen = [match for match in best(found, rule.topk, decisions) if match.admitted]
    else:
        chosen = best([match for match in found if match.admitted], rule.topk, decisions)
    return best(found, 1, decisions) if rule.rescue and not chosen else chosen


def task_aligned(
    rule: Rule, priors: Priors, targets: Targets, predictions: Predictions, decisions: Decisions
) -> dict[tuple[int, int], float]:
    """Score of each (box, prior) pair."""
    image = targets.image.tolist()
    every = [matches(rule, priors, targets, predictions, gt, decisions) for gt in range(len(targets))]
    takers: dict[tuple[int, int], list[int]] = {}
    for gt, found in enumerate(every):
        for match in select(rule, found, decisions):
            takers.setdefault((image[gt], match.prior), []).append(gt)
    owned: list[list[Match]] = [[] for _ in every]
    for (picture, prior), boxes in takers.items():
        if rule.rivals == "containing" and len(boxes) > 1:
            boxes = boxes + [
                gt
                for gt, found in enumerate(every)
                if image[gt] == picture and found[prior].admitted and found[prior].alignment >= LEAST
            ]
        (owner,) = decisions.lowest([(-every[gt][prior].overlap, gt) for gt in boxes], 1)
        owned[owner].append(every[owner][prior])
    scores = {}
    for gt, kept in enumerate(owned):
        kept = best(sorted(kept, key=lambda match: match.prior), rule.topk2 or len(kept), decisions)
        for match in kept:
            share = match.alignment / max(other.alignment for other in kept)
            scores[gt, match.prior] = share * max(other.overlap for other in kept)
    return scores
