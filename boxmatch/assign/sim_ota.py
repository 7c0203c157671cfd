"""SimOTA: each box keeps its cheapest priors near its centre, as many as its predictions deserve."""

from typing import ClassVar

import torch
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .dynamic_k import cheapest, dynamic_k
from .pick import owners
from .piecewise import piecewise
from .story import Story
from .take import class_logits, places, predicted_boxes, quality_logits

IOU_EPS = 1e-8
"""Added to the IoU before the logarithm; yolox/models/yolo_head.py."""


class SimOTA(Assigner):
    """Near the centre → class cost + IoU cost → lowest dynamic k → lowest cost owns the prior."""

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        center_radius: float = 1.5,
        iou_weight: float = 3.0,
        candidate_topk: int = 10,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        self.center_radius = center_radius
        self.iou_weight = iou_weight
        self.candidate_topk = candidate_topk

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        lengths = torch.full_like(targets.labels, 50)

        def shortlist(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            pairs = priors.within(part, self.center_radius)
            place = places(pairs, part, len(priors))
            iou = pair_iou(predicted_boxes(predictions, place, "SimOTA"), take_boxes(part.boxes, pairs.gt))
            logits = predictions.logits.flatten(0, 1).index_select(0, place).double()
            own = class_logits(predictions, place, pairs, part).double()
            log_p = torch.nn.functional.logsigmoid(logits)
            log_own = torch.nn.functional.logsigmoid(own)
            quality = quality_logits(predictions, place)
            if quality is not None:
                sure = torch.nn.functional.logsigmoid(quality.double())
                log_p, log_own = (log_p + sure[:, None]) / 2, (log_own + sure) / 2
            else:
                log_p, log_own = log_p / 2, log_own / 2
            negative = -torch.log(-torch.expm1(log_p)).sum(1)
            cost = negative + torch.log(-torch.expm1(log_own)) - log_own
            cost = (cost - self.iou_weight * (iou.double() + IOU_EPS).log()).float()
            k = dynamic_k(iou, pairs.gt, len(part), self.candidate_topk)
            kept = cheapest(cost, pairs.gt, k)
            story.candidates(pairs, -cost)
            story.keep(kept, otherwise="not_topk")
            return pairs.select(kept), (cost[kept], iou[kept])

        selected, (cost, iou) = piecewise(targets, lengths, shortlist, story)
        owned = owners(selected, -cost, targets, len(priors))
        result = Assignment.hard(
            selected.select(owned), targets, len(priors), levels=priors.levels, candidates=selected
        )
        return Assignment(**{**vars(result), "score": iou[owned]})
