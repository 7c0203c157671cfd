"""SimOTA and dynamic soft label as loops in double precision, from the specification."""

import math
from dataclasses import replace

import numpy as np
import torch
from decisions import Decisions
from drawn_problems import iou

from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

Entry = tuple[float, float]
"""Cost and IoU of a candidate pair."""


def with_classes(predictions: Predictions, seed: int, classes: int, quality: bool) -> Predictions:
    """The same boxes with random logits: some classes are as good as certain."""
    random = torch.Generator().manual_seed(seed)
    shape = predictions.deltas.shape[:2]
    return replace(
        predictions,
        logits=4 * torch.randn((*shape, classes), generator=random),
        quality=3 * torch.randn(shape, generator=random) if quality else None,
    )


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def lies_inside(priors: Priors, prior: int, box: list[float]) -> bool:
    """Whether the centre is strictly in the box."""
    x, y = priors.centers[prior].tolist()
    return box[0] < x < box[2] and box[1] < y < box[3]


def lies_near(priors: Priors, prior: int, box: list[float], radius: float) -> bool:
    """Whether the centre is strictly less than `radius` strides away along both axes."""
    x, y = priors.centers[prior].tolist()
    reach = radius * float(priors.stride[prior])
    return abs(x - (box[0] + box[2]) / 2) < reach and abs(y - (box[1] + box[3]) / 2) < reach


def sim_ota_candidates(
    priors: Priors, targets: Targets, *, radius: float, inside: bool, legacy: bool
) -> list[dict[int, float]]:
    """For each box its candidates, each with its penalty."""
    boxes, image = targets.boxes.tolist(), targets.image.tolist()

    def allowed(prior: int, box: list[float]) -> bool:
        return lies_near(priors, prior, box, radius) and (not inside or lies_inside(priors, prior, box))

    def listed(prior: int, box: list[float]) -> bool:
        return lies_near(priors, prior, box, radius) or (inside and lies_inside(priors, prior, box))

    found = []
    for gt, box in enumerate(boxes):
        neighbours = [other for row, other in enumerate(boxes) if image[row] == image[gt]]
        candidates = {}
        for prior in range(len(priors)):
            if allowed(prior, box):
                candidates[prior] = 0.0
            elif legacy and any(listed(prior, other) for other in neighbours):
                candidates[prior] = 1e6
        found.append(candidates)
    return found


def sim_ota_cost(predictions: Predictions, image: int, prior: int, label: int) -> float:
    """Binary cross entropy of all classes."""
    total = 0.0
    for number, logit in enumerate(predictions.logits[image, prior].tolist()):
        p = sigmoid(logit)
        if predictions.quality is not None:
            p = math.sqrt(p * sigmoid(float(predictions.quality[image, prior])))
            absent = 1 - p
        else:
            absent = sigmoid(-logit)
        chance = p if number == label else absent
        total += min(100.0, -math.log(chance)) if chance > 0 else 100.0
    return total


def soft_label_cost(
    predictions: Predictions, image: int, prior: int, label: int, overlap: float, every: bool
) -> float:
    """Quality focal loss of all classes or of the box's own."""
    total = 0.0
    for number, logit in enumerate(predictions.logits[image, prior].tolist()):
        if not every and number != label:
            continue
        wanted = overlap if number == label else 0.0
        cross_entropy = max(logit, 0) - logit * wanted + math.log1p(math.exp(-abs(logit)))
        total += cross_entropy * (wanted - sigmoid(logit)) ** 2
    return total


def solve(
    entries: list[dict[int, Entry]], image: list[int], topk: int, decisions: Decisions
) -> dict[tuple[int, int], float]:
    """IoU of each (box, prior) pair of the result, from the candidates of each box."""
    takers: dict[tuple[int, int], list[int]] = {}
    for gt, candidates in enumerate(entries):
        best = sorted((overlap for _, overlap in candidates.values()), reverse=True)[:topk]
        k = max(1, decisions.floor(best)) if best else 0
        for prior in decisions.lowest([(cost, prior) for prior, (cost, _) in candidates.items()], k):
            takers.setdefault((image[gt], prior), []).append(gt)
    pairs = {}
    for (picture, prior), boxes in takers.items():
        owner = boxes[0]
        if len(boxes) > 1:
            rivals = [
                (candidates[prior][0], gt)
                for gt, candidates in enumerate(entries)
                if image[gt] == picture and prior in candidates
            ]
            (owner,) = decisions.lowest(rivals, 1)
        pairs[owner, prior] = entries[owner][prior][1]
    return pairs


def sim_ota(
    priors: Priors,
    targets: Targets,
    predictions: Predictions,
    decisions: Decisions,
    *,
    radius: float = 1.5,
    inside: bool = False,
    legacy: bool = False,
    topk: int = 10,
    iou_weight: float = 3.0,
) -> dict[tuple[int, int], float]:
    """IoU of each pair."""
    listed = sim_ota_candidates(priors, targets, radius=radius, inside=inside, legacy=legacy)
    image, labels, boxes = targets.image.tolist(), targets.labels.tolist(), targets.boxes.tolist()
    entries: list[dict[int, Entry]] = []
    for gt, candidates in enumerate(listed):
        entries.append({})
        for prior, penalty in candidates.items():
            overlap = iou(predictions.boxes[image[gt], prior].tolist(), boxes[gt])
            cost = sim_ota_cost(predictions, image[gt], prior, labels[gt])
            cost += penalty - iou_weight * math.log(overlap + 1e-8)
            entries[gt][prior] = (float(np.float32(cost)), overlap)
    return solve(entries, image, topk, decisions)


def dynamic_soft_label(
    priors: Priors,
    targets: Targets,
    predictions: Predictions,
    decisions: Decisions,
    *,
    every_class: bool = True,
    every_candidate: bool = False,
    topk: int = 13,
    iou_weight: float = 3.0,
    radius: float = 3.0,
) -> dict[tuple[int, int], float]:
    """IoU of each pair."""
    image, labels, boxes = targets.image.tolist(), targets.labels.tolist(), targets.boxes.tolist()
    entries: list[dict[int, Entry]] = []
    for gt, box in enumerate(boxes):
        neighbours = [other for row, other in enumerate(boxes) if image[row] == image[gt]]
        entries.append({})
        for prior in range(len(priors)):
            around = neighbours if every_candidate else [box]
            if not any(lies_inside(priors, prior, other) for other in around):
                continue
            overlap = iou(predictions.boxes[image[gt], prior].tolist(), box)
            middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
            away = math.dist(priors.centers[prior].tolist(), middle) / float(priors.stride[prior])
            cost = soft_label_cost(predictions, image[gt], prior, labels[gt], overlap, every_class)
            cost += 10 ** (away - radius) - iou_weight * math.log(overlap + 1e-7)
            entries[gt][prior] = (float(np.float32(min(cost, 1e300))), overlap)
    return solve(entries, image, topk, decisions)
