"""Optimal transport assignment: boxes supply labels, priors demand one each, the cheapest plan decides."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..losses.functional import sigmoid_focal
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .dynamic_k import dynamic_k
from .pick import owners
from .piecewise import piecewise
from .points import most_within, side_distances
from .story import Story
from .take import by_column, class_logits, places, predicted_boxes
from .transport import Transport

IOU_EPS = torch.finfo(torch.float32).eps
"""Least IoU in the logarithm; ours, the paper names none."""

INSIDE_MARGIN = 0.01
"""How far in pixels a point must lie inside the box; the original's fcos.py."""


class OTA(Assigner):
    """Inside and near the centre → class + IoU cost → transport of dynamic k labels → greatest share owns.

    Each box has as many labels to give as the IoU of its `topk` best predictions adds up to, rounded down, at
    least 1; the background of the image has the rest, so that there is one for each prior. To give one to a
    prior costs the focal loss (alpha 0.25, gamma 2) of all classes, and for a box `iou_weight` · -log IoU of
    the predicted box. The plan of least cost, smoothed by `epsilon`, is found by Sinkhorn's algorithm. Each
    box's part of it, and the background's, is divided by its greatest entry; a prior learns the box of the
    greatest share, or none if that of the background is greater. Equal shares go to a box before the
    background, and to the lowest row. A box without a candidate gets no pair and has no labels to give.

    Boxes that cover each other add to the labels: of equal boxes the lowest row learns all that they get
    together.

    Args:
        center_radius: half side of the square around the box's centre that the prior's centre must lie in,
            inside the box, in strides of its level, border excluded.
        topk: predictions whose IoU is added up.
        epsilon: smoothing of the plan, in units of cost.
        iterations: of Sinkhorn's algorithm.
        iou_weight: of -log IoU in the cost.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Ge et al. 2021 (OTA), sec. 3 and algorithm 1; Megvii-BaseDetection/OTA, fcos.py. The plan is
    worked out on candidate pairs; see `Transport` for why that changes nothing.
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
        if not (0 < center_radius < math.inf and 0 < epsilon < math.inf and 0 <= iou_weight < math.inf):
            raise ValueError(
                "expected finite center_radius and epsilon above 0 and iou_weight of 0 or more, got "
                f"{center_radius=}, {epsilon=}, {iou_weight=}"
            )
        if not (topk >= 1 and iterations >= 1):
            raise ValueError(f"expected topk and iterations of 1 or more, got {topk=}, {iterations=}")
        self.center_radius = center_radius
        self.topk = topk
        self.epsilon = epsilon
        self.iterations = iterations
        self.iou_weight = iou_weight

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        lengths = torch.full_like(targets.labels, most_within(priors, self.center_radius))
        predictions = by_column(predictions, lengths)

        def candidates(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            return self._candidates(priors, part, predictions)

        pairs, (iou, gain) = piecewise(targets, lengths, candidates, story)
        supply = dynamic_k(iou, pairs.gt, len(targets), self.topk)
        problem = Transport.of(pairs, gain / self.epsilon, targets, len(priors))
        # Rounded, so that what differs by the order of additions alone is equal.
        share, beside = (part.float() for part in problem.shares(problem.plan(supply, self.iterations)))
        kept = share >= beside
        story.candidates(pairs, share, beside)
        story.keep(kept, otherwise="below_threshold")
        rows = kept.nonzero().squeeze(1)
        selected = pairs.select(rows)
        owned = owners(selected, share.index_select(0, rows), targets, len(priors))
        return Assignment.hard(
            selected.select(owned), targets, len(priors), levels=priors.levels, candidates=selected
        )

    def _candidates(
        self, priors: Priors, targets: Targets, predictions: Predictions
    ) -> tuple[Pairs, tuple[Tensor, Tensor]]:
        """Pairs, their IoU, and how much less they cost than the prior as background."""
        pairs = priors.within(targets, self.center_radius)
        pairs = pairs.select(side_distances(priors, targets, pairs).amin(1) > INSIDE_MARGIN)
        place = places(pairs, targets, len(priors))
        iou = pair_iou(predicted_boxes(predictions, place, "OTA"), take_boxes(targets.boxes, pairs.gt))
        logit = class_logits(predictions, place, pairs, targets).double()
        # All classes but the box's own cost the same for background and box.
        gain = sigmoid_focal(logit, torch.zeros_like(logit)) - sigmoid_focal(logit, torch.ones_like(logit))
        return pairs, (iou, gain + self.iou_weight * iou.double().clamp_(min=IOU_EPS).log_())

    def extra_repr(self) -> str:
        return (
            f"center_radius={self.center_radius}, topk={self.topk}, epsilon={self.epsilon}, "
            f"iterations={self.iterations}, iou_weight={self.iou_weight}, "
            f"ignore_threshold={self.ignore_threshold}"
        )
