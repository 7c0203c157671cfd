"""Dual weighting once more, as slow loops in double precision, straight from the specification."""

import math
from dataclasses import dataclass

from drawn_problems import Box, iou

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets


@dataclass
class Learned:
    """What a pair should carry."""

    positive: float
    negative: float
    doubtful: bool
    """Whether rounding may give the negative weight another value."""


def dual_weights(
    priors: Priors,
    targets: Targets,
    predictions: Predictions,
    *,
    beta: float = 5,
    mu_num: float = 5,
    mu_den: float = 3,
    loc_score: str = "giou",
    bag: str = "soft_center",
    sigma: float = 1.11,
    topk: int = 9,
    topk_weight: str = "prior",
    neg_curve: str = "bag_minmax",
    iou_low: float = 0.5,
    iou_high: float = 0.95,
    neg_exponent: float = 2,
    neg_conflict: str = "min",
    degenerate_bag: str = "zero",
) -> dict[tuple[int, int], Learned]:
    """Both weights of every pair (box, prior)."""
    found: dict[tuple[int, int], Learned] = {}
    for gt, (box, label, image) in enumerate(
        zip(targets.boxes.tolist(), targets.labels.tolist(), targets.image.tolist())
    ):
        inside = [
            prior
            for prior, (x, y) in enumerate(priors.centers.tolist())
            if min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0
        ]
        predicted = {prior: predictions.boxes[image, prior].tolist() for prior in inside}
        overlap = {prior: iou(predicted[prior], box) for prior in inside}
        share = in_bag(priors, box, inside, sigma, bag, topk, topk_weight)
        joint = {}
        for prior in inside:
            score = sigmoid(float(predictions.logits[image, prior, label]))
            if predictions.quality is not None:
                score *= sigmoid(float(predictions.quality[image, prior]))
            if loc_score == "giou":
                joint[prior] = score * math.exp(-beta * (1 - giou(predicted[prior], box)))
            else:
                joint[prior] = score * overlap[prior] ** beta
        total = sum(math.exp(mu_den * joint[p]) * joint[p] * share[p] for p in inside)
        for prior in inside:
            weight = math.exp(mu_num * joint[prior]) * joint[prior] * share[prior] / max(total, 1e-12)
            if neg_curve == "fixed":
                value = fixed(overlap[prior], iou_low, iou_high, neg_exponent)
                doubtful = False
            else:
                value, doubtful = relative(
                    overlap[prior], overlap.values(), iou_low, neg_exponent, degenerate_bag
                )
            found[gt, prior] = Learned(weight, value, doubtful)
    return settled(found, targets, neg_conflict)


def in_bag(
    priors: Priors, box: Box, inside: list[int], sigma: float, bag: str, topk: int, topk_weight: str
) -> dict[int, float]:
    """The centre prior of each prior inside, as the kind of bag has it."""
    prior_of = {}
    for prior in inside:
        (x, y), stride = priors.centers[prior].tolist(), float(priors.stride[prior])
        dx, dy = (x - (box[0] + box[2]) / 2) / stride, (y - (box[1] + box[3]) / 2) / stride
        prior_of[prior] = math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    if bag == "hard_center":
        return {prior: float(value > 0.3) for prior, value in prior_of.items()}
    if bag == "topk":
        best = sorted(inside, key=lambda prior: (-prior_of[prior], prior))[:topk]
        kept = prior_of if topk_weight == "prior" else dict.fromkeys(inside, 1.0)
        return {prior: kept[prior] if prior in best else 0.0 for prior in inside}
    return prior_of


def relative(u, overlaps, low, exponent, degenerate) -> tuple[float, bool]:
    """The curve between the best and the worst overlap of the box, in its closed form."""
    best, worst = max(overlaps), min(overlaps)
    span = best**exponent - max(worst, low) ** exponent
    # At `low` the best pair jumps from 1 to 0, and a span of nothing is 0 / 0.
    doubtful = (u != low and abs(u - low) < 1e-5) or 0 < abs(span) < 1e-4
    if u < low:
        return 1.0, doubtful
    if span <= 0:
        return (1.0 if degenerate == "official" else 0.0), doubtful
    return (best**exponent - u**exponent) / span, doubtful


def fixed(u: float, low: float, high: float, exponent: float) -> float:
    """1 at `low`, 0 at `high`, a straight line in u ** exponent between them."""
    kappa = 1 / (high**exponent - low**exponent)
    return min(1.0, max(0.0, kappa * (high**exponent - u**exponent)))


def settled(
    found: dict[tuple[int, int], Learned], targets: Targets, rule: str
) -> dict[tuple[int, int], Learned]:
    """One negative weight for all pairs of a prior with boxes of one class of its image."""
    result = {}
    for (gt, prior), own in found.items():
        rivals = [
            other
            for (row, place), other in sorted(found.items(), key=lambda item: item[0])
            if place == prior
            and targets.image[row] == targets.image[gt]
            and targets.labels[row] == targets.labels[gt]
        ]
        values = [rival.negative for rival in rivals]
        picked = {"min": min(values), "max": max(values), "last": values[-1]}[rule]
        result[gt, prior] = Learned(own.positive, picked, any(rival.doubtful for rival in rivals))
    return result


def giou(box: Box, other: Box) -> float:
    """Generalised IoU; a box with swapped corners has no area."""
    areas = [max(0.0, x2 - x1) * max(0.0, y2 - y1) for x1, y1, x2, y2 in (box, other)]
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    union = sum(areas) - width * height
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
    return iou(box, other) - (hull - union) / hull


def sigmoid(value: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-value))
