"""The losses of dual weighting and AutoAssign once more in float64, on probabilities and whole matrices.

Straight from the specification; B images, P priors, C classes, G boxes.
"""

import torch
from torch import Tensor

from boxmatch.structures import Assignment, Predictions, Targets


def scores(predictions: Predictions) -> Tensor:
    """sigmoid(class logit) · sigmoid(objectness logit), (B, P, C)."""
    score = predictions.logits.sigmoid()
    return score if predictions.quality is None else score * predictions.quality.sigmoid()[..., None]


def negative_map(assignment: Assignment, targets: Targets, like: Tensor) -> Tensor:
    """Negative weight of every prior and class, (B, P, C): 1, or that of a pair; 0 where ignored."""
    weights = torch.ones_like(like)
    rows = zip(
        assignment.image.tolist(),
        assignment.pairs.prior.tolist(),
        targets.labels[assignment.pairs.gt].tolist(),
        assignment.neg_weight.tolist(),
    )
    for image, prior, label, value in rows:
        weights[image, prior, label] = value
    return weights


def giou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of (P, 4) boxes with (G, 4) others, (P, G)."""
    first, second = boxes[:, None], others[None]
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    areas = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    union = (areas - inter).clamp(min=1e-6)
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).prod(-1).clamp(min=1e-6)
    return inter / union - (hull - union) / hull


def dual_weight_losses(
    targets: Targets,
    predictions: Predictions,
    assignment: Assignment,
    *,
    class_weight: float = 0.25,
    loc_weight: float = 1.25,
    neg_weight: float = 1.0,
    neg_gamma: float = 2.0,
) -> dict[str, Tensor]:
    """The three terms, of one process."""
    score = scores(predictions)
    weights = negative_map(assignment, targets, score)
    part = (~assignment.ignored)[..., None]
    pairs, image = assignment.pairs, assignment.image
    own = score[image, pairs.prior, targets.labels[pairs.gt]]
    giou = torch.stack(
        [giou_matrix(predictions.boxes[i], targets.boxes.double()) for i in range(targets.batch_size)]
    )[image, pairs.prior, pairs.gt]
    objects = max(1, int((~targets.ignore).sum()))
    spared = max(1.0, float((1 - weights).sum()))
    background = part * weights * score**neg_gamma * -(1 - score).log()
    return {
        "class_positive": class_weight / objects * (assignment.weight * -own.log()).sum(),
        "box": loc_weight / objects * (assignment.weight * (1 - giou)).sum(),
        "class_negative": neg_weight / spared * background.sum(),
    }
