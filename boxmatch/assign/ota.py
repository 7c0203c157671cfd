"""Optimal transport assignment: boxes supply labels, priors demand one each, the cheapest plan decides."""

import math
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..priors import Priors
from ..segments import segment_lengths, segment_max, segment_sum
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .dynamic_k import dynamic_k
from .pick import owners
from .story import Story
from .take import class_logits, places, predicted_boxes

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of the focal loss in the class cost; Ge et al. 2021, sec. 4.1."""

IOU_EPS = torch.finfo(torch.float32).eps
"""Least IoU in the logarithm; ours, the paper names none."""

INSIDE_MARGIN = 0.01
"""How far in pixels a point must lie inside a box; the original's fcos.py."""

MASS_EPS = 1e-8
"""Added to supplies and demands before the logarithm; the original's SinkhornDistance."""


class OTA(Assigner):
    """Inside and near the centre → class + IoU cost → transport of dynamic k labels → greatest share owns.

    Each box supplies a dynamic number of labels, the background the rest, each prior demands one.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        center_radius: float = 2.5,
        topk: int = 20,
        epsilon: float = 0.1,
        iterations: int = 50,
        iou_weight: float = 1.5,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        self.center_radius = center_radius
        self.topk = topk
        self.epsilon = epsilon
        self.iterations = iterations
        self.iou_weight = iou_weight

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        pairs = self._candidates(priors, targets)
        place = places(pairs, targets, len(priors))
        iou = pair_iou(predicted_boxes(predictions, place, "OTA"), take_boxes(targets.boxes, pairs.gt))
        logit = class_logits(predictions, place, pairs, targets).double()
        gain = -_class_cost(logit) + self.iou_weight * iou.double().clamp(min=IOU_EPS).log()
        problem = Transport.build(pairs, place, targets, len(priors), gain / self.epsilon)
        supply = dynamic_k(iou, pairs.gt, len(targets), self.topk)
        share = problem.shares(supply, self.iterations).float()
        story.candidates(pairs, share)
        story.keep(share >= 0, otherwise="below_threshold")
        taken = (share >= 0).nonzero().squeeze(1)
        selected = pairs.select(taken)
        owned = owners(selected, share[taken], targets, len(priors))
        return Assignment.hard(
            selected.select(owned), targets, len(priors), levels=priors.levels, candidates=selected
        )

    def _candidates(self, priors: Priors, targets: Targets) -> Pairs:
        pairs = priors.within(targets, self.center_radius)
        x, y = priors.centers.index_select(0, pairs.prior).unbind(1)
        x1, y1, x2, y2 = take_boxes(targets.boxes, pairs.gt).unbind(1)
        depth = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))
        return pairs.select(depth > INSIDE_MARGIN)


def _class_cost(logit: Float64[Tensor, "N"]) -> Float64[Tensor, "N"]:
    """Focal loss of the box's class as object, less that as background."""
    p = logit.sigmoid()
    as_object = FOCAL_ALPHA * (1 - p).pow(FOCAL_GAMMA) * torch.nn.functional.softplus(-logit)
    return as_object - (1 - FOCAL_ALPHA) * p.pow(FOCAL_GAMMA) * torch.nn.functional.softplus(logit)


class Transport(NamedTuple):
    """Letters: V priors of the batch with a candidate pair."""

    gain: Float64[Tensor, "N"]
    gt: Int64[Tensor, "N"]
    column: Int64[Tensor, "N"]
    gt_image: Int64[Tensor, "G"]
    column_image: Int64[Tensor, "V"]
    empty: Int64[Tensor, "B"]

    @classmethod
    def build(
        cls,
        pairs: Pairs,
        place: Int64[Tensor, "N"],
        targets: Targets,
        prior_count: int,
        gain: Float64[Tensor, "N"],
    ) -> "Transport":
        used = torch.zeros(targets.batch_size * prior_count, dtype=torch.bool, device=place.device)
        used.index_fill_(0, place, True)
        column = (used.cumsum(0) - 1).index_select(0, place)
        column_image = used.nonzero().squeeze(1) // prior_count
        empty = prior_count - segment_lengths(column_image, targets.batch_size)
        return cls(gain, pairs.gt, column, targets.image, column_image, empty)

    def shares(self, supply: Int64[Tensor, "G"], iterations: int) -> Float64[Tensor, "N"]:
        gts, columns, images = len(self.gt_image), len(self.column_image), len(self.empty)
        served = segment_lengths(self.gt, gts) > 0
        supply = supply * served
        demand = math.log(1 + MASS_EPS)
        log_supply = (supply + MASS_EPS).log()
        rest = self.empty + segment_lengths(self.column_image, images)
        rest = (rest - segment_sum(supply, self.gt_image, images)).double().clamp(min=MASS_EPS)
        log_rest = (rest + MASS_EPS).log()
        row = self.gain.new_zeros(gts)
        background = self.gain.new_zeros(images)
        nothing = torch.full_like(self.empty, -torch.inf, dtype=torch.float64)
        log_empty = torch.where(self.empty > 0, self.empty.double().log(), nothing)
        for _ in range(iterations):
            of_column = background.index_select(0, self.column_image)
            price = self.gain + row.index_select(0, self.gt)
            column = demand - _logsumexp(price, self.column, columns, of_column)
            price = self.gain + column.index_select(0, self.column)
            row = log_supply - _logsumexp(price, self.gt, gts, torch.full_like(row, -torch.inf))
            idle = demand - background
            background = log_rest - _logsumexp(column, self.column_image, images, log_empty + idle)
        price = price + row.index_select(0, self.gt)
        share = price - segment_max(price, self.gt, gts).index_select(0, self.gt)
        most = torch.maximum(
            segment_max(column, self.column_image, images), idle + nothing.where(self.empty == 0, 0.0)
        )
        return share - (column - most.index_select(0, self.column_image)).index_select(0, self.column)


def _logsumexp(values: Tensor, segment: Tensor, count: int, extra: Tensor) -> Tensor:
    largest = torch.maximum(segment_max(values, segment, count), extra)
    shift = largest.masked_fill(largest.isneginf(), 0.0)
    total = segment_sum((values - shift.index_select(0, segment)).exp(), segment, count)
    return (total + (extra - shift).exp()).log() + shift
