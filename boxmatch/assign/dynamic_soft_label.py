"""Dynamic soft label: each box keeps its cheapest priors inside, with the IoU as class target."""

from typing import ClassVar

from torch import Tensor

from ..boxes import box_centers, pair_iou, take_boxes
from ..losses.functional import quality_focal
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .dynamic_k import cheapest, dynamic_k
from .pick import owners
from .piecewise import piecewise
from .story import Story
from .take import class_logits, places, predicted_boxes

IOU_EPS = 1e-7
"""Added to the IoU before the logarithm; mmdet's dynamic_soft_label_assigner.py."""


class DynamicSoftLabel(Assigner):
    """Inside the box → class, IoU and centre cost → lowest dynamic k → lowest cost owns the prior."""

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: int = 13,
        iou_weight: float = 3.0,
        center_radius: float = 3.0,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        self.topk = topk
        self.iou_weight = iou_weight
        self.center_radius = center_radius

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None

        def shortlist(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            pairs = priors.inside(part)
            place = places(pairs, part, len(priors))
            iou = pair_iou(
                predicted_boxes(predictions, place, "DynamicSoftLabel"), take_boxes(part.boxes, pairs.gt)
            )
            own = class_logits(predictions, place, pairs, part).double()
            away = priors.centers[pairs.prior].double() - box_centers(part.boxes)[pairs.gt].double()
            distance = away.square().sum(1).sqrt() / priors.stride[pairs.prior]
            cost = quality_focal(own, iou.double()) - self.iou_weight * (iou.double() + IOU_EPS).log()
            cost = (cost + 10 ** (distance - self.center_radius)).float()
            kept = cheapest(cost, pairs.gt, dynamic_k(iou, pairs.gt, len(part), self.topk))
            story.candidates(pairs, -cost)
            story.keep(kept, otherwise="not_topk")
            return pairs.select(kept), (cost[kept], iou[kept])

        selected, (cost, iou) = piecewise(targets, priors.count_inside(targets), shortlist, story)
        owned = owners(selected, -cost, targets, len(priors))
        result = Assignment.hard(
            selected.select(owned), targets, len(priors), levels=priors.levels, candidates=selected
        )
        return Assignment(**{**vars(result), "score": iou[owned]})
