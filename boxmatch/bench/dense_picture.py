"""What the dense forms of assigners share: one picture, its matrices, and how their answer is compared.

The dense forms are written as published code is, a boxes × priors matrix for one picture after the other.
They are here to be measured against and compared with; nothing else uses them.

Letters: M boxes of the picture, P priors, C classes, N pairs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

from boxmatch.bench.standard_inputs import Inputs
from boxmatch.boxes import area
from boxmatch.priors import Priors
from boxmatch.structures import Assignment

MOVED_PAIRS = 2e-3
"""Share of the pairs in which the two forms may differ: decisions that hang on the last bit of a float."""

MOVED_VALUE = 1e-3
"""How far a weight may lie from that of the dense form, in shares of it where it is above 1.

The dense forms work in float32, as published code does.
"""


class Picture(NamedTuple):
    """One picture, as published code sees it; predictions are absent where the rule reads none."""

    priors: Priors
    boxes: Float[Tensor, "M 4"]
    labels: Int64[Tensor, "M"]
    logits: Float[Tensor, "P C"] | None = None
    predicted: Float[Tensor, "P 4"] | None = None
    quality: Float[Tensor, "P"] | None = None


class Matched(NamedTuple):
    """Who learns what in one picture.

    Args:
        weight: of each pair; 1 if not given.
        ignored: priors that take no part; none if not given.
        neg_weight: of each pair; 0 if not given.
    """

    gt: Int64[Tensor, "N"]
    prior: Int64[Tensor, "N"]
    weight: Float[Tensor, "N"] | None = None
    ignored: Bool[Tensor, "P"] | None = None
    neg_weight: Float[Tensor, "N"] | None = None


Dense = Callable[[Any, Picture], Matched]
"""The dense form of an assigner: takes the assigner, for its options, and a picture."""


def match_all(dense: Dense, assigner: Any, inputs: Inputs) -> list[Matched]:
    """What each picture of a batch comes to, one after the other as published code does it."""
    targets, predictions = inputs.targets, inputs.predictions
    found = []
    for image in range(targets.batch_size):
        rows = (targets.image == image).nonzero().squeeze(1)
        picture = Picture(inputs.priors, targets.boxes[rows], targets.labels[rows])
        if predictions is not None:
            quality = None if predictions.quality is None else predictions.quality[image]
            assert predictions.boxes is not None
            picture = picture._replace(
                logits=predictions.logits[image], predicted=predictions.boxes[image], quality=quality
            )
        found.append(dense(assigner, picture))
    return found


def disagreement(assignment: Assignment, dense: list[Matched]) -> float:
    """Share of the pairs, or of the ignored priors, that only one form has or has with another weight."""
    targets, priors = assignment.targets, assignment.ignored.shape[1]
    moved = total = 0
    for image, matched in enumerate(dense):
        rows = (assignment.image == image).nonzero().squeeze(1)
        first = int((targets.image < image).sum())
        ours = (assignment.pairs.gt[rows] - first) * priors + assignment.pairs.prior[rows]
        theirs, order = (matched.gt * priors + matched.prior).sort()
        common = torch.isin(ours, theirs)
        place = torch.searchsorted(theirs, ours[common])
        differs = torch.zeros_like(place, dtype=torch.bool)
        for mine, other, absent in (
            (assignment.weight, matched.weight, 1.0),
            (assignment.neg_weight, matched.neg_weight, 0.0),
        ):
            values = torch.full_like(theirs, absent, dtype=torch.float32) if other is None else other[order]
            gap = (mine.detach()[rows[common]] - values[place]).abs()
            differs |= gap > MOVED_VALUE * values[place].abs().clamp(min=1)
        moved += int((~common).sum()) + len(theirs) - int(common.sum()) + int(differs.sum())
        total += max(len(ours), len(theirs))
        if matched.ignored is not None:
            moved += int((assignment.ignored[image] != matched.ignored).sum())
            total += int(matched.ignored.sum())
    return moved / max(total, 1)


def iou_matrix(picture: Picture) -> Float[Tensor, "M P"]:
    """IoU of every box with every prior."""
    return box_iou(picture.boxes, picture.priors.boxes)


def predicted_iou_matrix(picture: Picture) -> Float[Tensor, "M P"]:
    """IoU of every box with every predicted box."""
    assert picture.predicted is not None
    return box_iou(picture.boxes, picture.predicted)


def inside_matrix(picture: Picture, margin: float = 0.0) -> Bool[Tensor, "M P"]:
    """Whether each prior's centre lies in each box, by more than `margin` pixels."""
    return distance_matrix(picture).amin(2) > margin


def distance_matrix(picture: Picture) -> Float[Tensor, "M P 4"]:
    """Distance of each prior's centre from the left, upper, right and lower side of each box, pixels."""
    centers, boxes = picture.priors.centers, picture.boxes[:, None]
    return torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), 2)


def center_offset(picture: Picture) -> Float[Tensor, "M P 2"]:
    """Prior's centre less that of the box, pixels."""
    return picture.priors.centers - (picture.boxes[:, None, :2] + picture.boxes[:, None, 2:]) / 2


def near_center(picture: Picture, radius: float) -> Bool[Tensor, "M P"]:
    """Whether each prior lies less than `radius` of its strides from the box's centre, along both axes."""
    return (center_offset(picture).abs() < radius * picture.priors.stride[:, None]).all(2)


def class_scores(picture: Picture) -> Float[Tensor, "M P"]:
    """Probability of each box's class at every prior."""
    assert picture.logits is not None
    scores = picture.logits.sigmoid()
    if picture.quality is not None:
        scores = scores * picture.quality.sigmoid()[:, None]
    return scores[:, picture.labels].T


def best_of_each_prior(score: Float[Tensor, "M P"], kept: Bool[Tensor, "M P"]) -> Matched:
    """Every prior that some box keeps goes to the one of the highest score, of equal ones the lowest."""
    best, gt = score.masked_fill(~kept, -torch.inf).max(0)
    prior = (best > -torch.inf).nonzero().squeeze(1)
    return Matched(gt[prior], prior)


def lowest(cost: Float[Tensor, "M P"], count: Int64[Tensor, "M"]) -> Bool[Tensor, "M P"]:
    """Mark the `count` entries of lowest cost of each row, box by box."""
    kept = torch.zeros_like(cost, dtype=torch.bool)
    for row, k in enumerate(count.tolist()):
        values, places = cost[row].topk(min(k, cost.shape[1]), largest=False)
        kept[row, places[values < torch.inf]] = True
    return kept


def area_matrix(picture: Picture) -> Float[Tensor, "M P"]:
    """Area of each box, for every prior."""
    return area(picture.boxes)[:, None].expand(-1, len(picture.priors))
