"""OTA with a row per box and a column per prior in double precision, from the specification."""

import math
from dataclasses import dataclass

import torch
from decisions import Decisions
from drawn_problems import iou

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

FORBIDDEN = 1e6
LEAST_IOU = 2**-23


@dataclass
class Problem:
    """One image: its boxes that have a candidate, their costs and supplies; the background comes last."""

    rows: list[int]
    allowed: torch.Tensor
    cost: torch.Tensor
    supply: torch.Tensor


def focal(logit: float, positive: bool) -> float:
    """Focal loss, alpha 0.25 and gamma 2."""
    x = logit if positive else -logit
    p = 1 / (1 + math.exp(-x)) if x > -700 else 0.0
    entropy = max(-x, 0) + math.log1p(math.exp(-abs(x)))
    return (0.25 if positive else 0.75) * (1 - p) ** 2 * entropy


def lies_in_region(priors: Priors, prior: int, box: list[float], radius: float) -> bool:
    """Inside the box by more than 0.01 px, and in the square around its centre."""
    x, y = priors.centers[prior].tolist()
    reach = radius * float(priors.stride[prior])
    depth = min(x - box[0], y - box[1], box[2] - x, box[3] - y)
    away = max(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
    return depth > 0.01 and away < reach


def problem(
    priors: Priors,
    targets: Targets,
    predictions: Predictions,
    image: int,
    decisions: Decisions,
    *,
    radius: float = 2.5,
    topk: int = 20,
    iou_weight: float = 1.5,
) -> Problem:
    """Costs and supplies of an image."""
    count = len(priors)
    logits = predictions.logits[image].tolist()
    as_background = [sum(focal(x, False) for x in row) for row in logits]
    rows, allowed, costs, supply = [], [], [], []
    for gt in (targets.image == image).nonzero().squeeze(1).tolist():
        box, label = targets.boxes[gt].tolist(), int(targets.labels[gt])
        region = [lies_in_region(priors, prior, box, radius) for prior in range(count)]
        if not any(region):
            continue
        overlap = [iou(predictions.boxes[image, prior].tolist(), box) for prior in range(count)]
        best = sorted((u for u, ok in zip(overlap, region) if ok), reverse=True)[:topk]
        rows.append(gt)
        allowed.append(region)
        supply.append(max(1, decisions.floor(best)))
        costs.append(
            [
                as_background[prior]
                - focal(logits[prior][label], False)
                + focal(logits[prior][label], True)
                - iou_weight * math.log(max(overlap[prior], LEAST_IOU))
                + (0 if region[prior] else FORBIDDEN)
                for prior in range(count)
            ]
        )
    supply.append(max(count - sum(supply), 1e-8))
    return Problem(
        rows,
        torch.tensor([*allowed, [True] * count]),
        torch.tensor([*costs, as_background], dtype=torch.float64),
        torch.tensor(supply, dtype=torch.float64),
    )


def plan(given: Problem, epsilon: float = 0.1, iterations: int = 50) -> torch.Tensor:
    """Logarithm of the labels that each row gives to each column."""
    row = torch.ones(len(given.cost), dtype=torch.float64)
    column = torch.ones(given.cost.shape[1], dtype=torch.float64)

    def kernel() -> torch.Tensor:
        return (-given.cost + row[:, None] + column) / epsilon

    for _ in range(iterations):
        column = column + epsilon * (math.log(1 + 1e-8) - kernel().logsumexp(0))
        row = row + epsilon * ((given.supply + 1e-8).log() - kernel().logsumexp(1))
    return kernel()


def owners(given: Problem, log_plan: torch.Tensor, decisions: Decisions) -> dict[int, int]:
    """The box that each prior learns."""
    share = log_plan - log_plan.amax(1, keepdim=True)
    learned = {}
    for prior, entries in enumerate(share.T.tolist()):
        (best,) = decisions.lowest([(-value, row) for row, value in enumerate(entries)], 1)
        if best < len(given.rows):
            learned[prior] = given.rows[best]
    return learned
