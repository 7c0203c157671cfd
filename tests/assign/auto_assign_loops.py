"""AutoAssign and its loss once more: slow loops in double precision with a graph, from the specification."""

from dataclasses import dataclass, field

import torch
from drawn_problems import iou
from torch import Tensor

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

EPS = 1e-12


@dataclass
class AutoAssigned:
    """What each pair (box, prior) should carry, and the terms of the loss."""

    weight: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    prior: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    negative: dict[tuple[int, int], float] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)


def auto_assigned(
    priors: Priors,
    targets: Targets,
    predictions: Predictions,
    mean: Tensor,
    sigma: Tensor,
    *,
    beta: float = 5,
    sharpness: float = 3,
    force_topk: int = 0,
    neg_conflict: str = "min",
) -> AutoAssigned:
    """The whole method.

    Args:
        predictions: float64, with or without quality.
        mean: (C, 2) float64.
        sigma: (C, 2) float64.
    """
    found = AutoAssigned()
    bags = []
    for gt, (box, label, image) in enumerate(
        zip(targets.boxes.double(), targets.labels.tolist(), targets.image.tolist())
    ):
        nearness = torch.stack(
            [
                center_prior(point, float(stride), box, mean[label], sigma[label])
                for point, stride in zip(priors.centers.double(), priors.stride)
            ]
        )
        inside = [
            prior
            for prior, (x, y) in enumerate(priors.centers.tolist())
            if min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0
        ]
        if not inside and force_topk:
            inside = sorted(
                sorted(range(len(priors)), key=lambda p: (-float(nearness[p].detach()), p))[:force_topk]
            )
        joint = {p: confidence(predictions, image, p, label, box, beta) for p in inside}
        share = {p: (sharpness * joint[p]).exp() * nearness[p] for p in inside}
        total = sum(share.values(), torch.zeros((), dtype=torch.float64)).clamp(min=EPS)
        for p in inside:
            found.weight[gt, p], found.prior[gt, p] = share[p] / total, nearness[p]
        if inside:
            bags.append(sum(share[p] / total * joint[p] for p in inside))
        found.negative.update(
            {(gt, p): value for p, value in negatives(targets, predictions, image, inside).items()}
        )
    found.negative = settled(found.negative, targets, neg_conflict)
    found.terms = losses(targets, predictions, found, bags)
    return found


def center_prior(point: Tensor, stride: float, box: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of the distance from the box's centre in cells, along both axes."""
    offset = (point - (box[:2] + box[2:]) / 2) / stride - mean
    return (-offset.square() / (2 * sigma.square())).exp().prod()


def confidence(
    predictions: Predictions, image: int, prior: int, label: int, box: Tensor, beta: float
) -> Tensor:
    """class · objectness · exp(-beta (1 - GIoU))."""
    score = predictions.logits[image, prior, label].sigmoid()
    if predictions.quality is not None:
        score = score * predictions.quality[image, prior].sigmoid()
    predicted = predictions.boxes[image, prior]
    low, high = torch.maximum(predicted[:2], box[:2]), torch.minimum(predicted[2:], box[2:])
    inter = (high - low).clamp(min=0).prod()
    union = (predicted[2:] - predicted[:2]).clamp(min=0).prod() + (box[2:] - box[:2]).prod() - inter
    hull = (torch.maximum(predicted[2:], box[2:]) - torch.minimum(predicted[:2], box[:2])).prod()
    return score * (-beta * (1 - inter / union + (hull - union) / hull)).exp()


def negatives(targets: Targets, predictions: Predictions, image: int, inside: list[int]) -> dict[int, float]:
    """1 - f of each prior of one box."""
    others = targets.boxes[targets.image == image].tolist()
    raw = {}
    for p in inside:
        best = max(iou(predictions.boxes[image, p].tolist(), other) for other in others)
        raw[p] = 1 / max(1 - best, EPS)
    low, high = (min(raw.values()), max(raw.values())) if raw else (0, 0)
    return {p: 1 - (value - low + EPS) / (high - low + EPS) for p, value in raw.items()}


def settled(
    values: dict[tuple[int, int], float], targets: Targets, rule: str
) -> dict[tuple[int, int], float]:
    """One value for all pairs of a prior with boxes of one class of its image."""
    result = {}
    for gt, prior in values:
        rivals = [
            values[row, place]
            for row, place in sorted(values)
            if place == prior
            and targets.image[row] == targets.image[gt]
            and targets.labels[row] == targets.labels[gt]
        ]
        result[gt, prior] = {"min": min(rivals), "max": max(rivals), "last": rivals[-1]}[rule]
    return result


def losses(
    targets: Targets, predictions: Predictions, found: AutoAssigned, bags: list[Tensor]
) -> dict[str, Tensor]:
    """The three terms with the published weights, of one process."""
    zero = torch.zeros((), dtype=torch.float64)
    score = predictions.logits.sigmoid()
    if predictions.quality is not None:
        score = score * predictions.quality.sigmoid()[..., None]
    weights = torch.ones_like(score)
    for (gt, prior), value in found.negative.items():
        weights[targets.image[gt], prior, targets.labels[gt]] = value
    left = weights * score
    by_image = [zero] * targets.batch_size
    for (gt, _), prior in found.prior.items():
        by_image[int(targets.image[gt])] = by_image[int(targets.image[gt])] + prior
    total = float(sum(by_image, zero).detach())
    centers = [
        int((targets.image == image).sum()) / mass.clamp(min=EPS) if float(mass.detach()) > 0 else zero
        for image, mass in enumerate(by_image)
    ]
    return {
        "positive": 0.25 * sum((-bag.log() for bag in bags), zero) / max(len(targets), 1),
        "negative": 0.75 * (left.square() * -(1 - left).log()).sum() / max(total, 1.0),
        "center": 0.75 * sum(centers, zero) / max(targets.batch_size, 1),
    }
