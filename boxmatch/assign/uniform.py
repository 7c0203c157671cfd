"""Uniform matching: the k predictions and the k anchors nearest to each box, whatever its size."""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..boxes import pair_iou, take_boxes, xyxy_to_cxcywh
from ..priors import Priors
from ..segments import first_by_priority
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .nearest_boxes import nearest_anchors, nearest_boxes
from .prediction_overlap import predictions_over_boxes
from .story import Story
from .take import places

Collision = Literal["last", "nearest"]


class Uniform(Assigner):
    """All predictions and all anchors → L1 distance of centre and sides → nearest k of each → last claim.

    Every box gets the same number of places, 2k, of which some may coincide; a pair that is both among the
    nearest predictions and the nearest anchors has weight 2. A pair whose anchor has an IoU of less than
    `positive_iou` with the box is given up, and its prior takes no part. Nor does a prior that nobody claims
    and whose predicted box has an IoU of more than `ignore_iou` with any box of its image.

    Where several boxes claim one prior, one claim owns it. If that was given up, so are the others. If not,
    the prior learns the boxes of all that were not, but only the owner's class: its pair has score 1, the
    others 0, and `gt_index()` names the owner.

    Distances are in pixels, of centre, width and height; equal ones go to the lowest prior.

    Args:
        topk: k, 1 or more.
        positive_iou: in [0, 1].
        ignore_iou: in (0, 1]; 1 ignores no prediction.
        collision: which claim owns a prior: the "last" in the order of the original, which is that of the
            greatest rank among its box's k, of equal ones that of an anchor, then that of the highest row of
            the targets; or the "nearest", of equal ones that of the lowest row.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Chen et al. 2021 (YOLOF), sec. 4.2; mmdet, task_modules/assigners/uniform_assigner.py. There the
    other claims on a prior whose owning claim was given up still count in the box term.
    """

    uses_predictions: ClassVar[bool] = True

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """Equal distances are common with L1; the order of the boxes matters where the last one wins."""
        ties = {"turned_picture": "anchors on one diagonal are equally near; the lowest prior comes first"}
        if self.collision != "last":
            return ties
        return ties | {"order_of_boxes": "of claims of equal rank the last box owns the prior"}

    def __init__(
        self,
        *,
        topk: int = 4,
        positive_iou: float = 0.15,
        ignore_iou: float = 0.7,
        collision: Collision = "last",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if topk < 1 or not 0 <= positive_iou <= 1 or not 0 < ignore_iou <= 1:
            raise ValueError(
                f"expected topk of 1 or more, positive_iou in [0, 1] and ignore_iou in (0, 1], got {topk=}, "
                f"{positive_iou=}, {ignore_iou=}"
            )
        if collision not in get_args(Collision):
            raise ValueError(f"expected collision in {get_args(Collision)}, got {collision!r}")
        self.topk = topk
        self.positive_iou = positive_iou
        self.ignore_iou = ignore_iou
        self.collision: Collision = collision

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        ignored = predictions_over_boxes("Uniform", priors, targets, predictions, self.ignore_iou)
        assert predictions.boxes is not None  # checked there
        predicted = nearest_boxes(xyxy_to_cxcywh(predictions.boxes), targets, self.topk)
        anchored = nearest_anchors(priors, targets, self.topk)
        claims, weight, score = self._claims(predicted, anchored, len(priors))
        iou = pair_iou(take_boxes(priors.boxes, claims.prior), take_boxes(targets.boxes, claims.gt))
        positive = iou >= self.positive_iou
        story.candidates(claims, iou, torch.full_like(iou, self.positive_iou))
        story.keep(positive, otherwise="ignored")
        tie = len(targets) - 1 - claims.gt if self.collision == "last" else claims.gt
        place = places(claims, targets, len(priors))
        owned = first_by_priority(score, place, ignored.numel(), tie)
        ignored.view(-1)[place] = False
        ignored.view(-1)[place[owned & ~positive]] = True
        learned = positive & ~ignored.view(-1)[place]
        pairs = claims.select(learned)
        return Assignment(
            pairs=pairs,
            weight=weight[learned],
            score=owned[learned].float(),
            neg_weight=torch.zeros(len(pairs), device=weight.device),
            ignored=ignored,
            targets=targets,
            levels=priors.levels,
            candidates=claims,
        )

    def _claims(
        self,
        predicted: tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]],
        anchored: tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]],
        prior_count: int,
    ) -> tuple[Pairs, Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Each claimed pair once: how often it is claimed, and what it competes with for its prior."""
        prior = torch.cat((predicted[0], anchored[0]), dim=1)  # (G, 2K)
        distance = torch.cat((predicted[1], anchored[1]), dim=1)
        gt = torch.arange(len(prior), device=prior.device)[:, None]
        key, claim, count = (gt * prior_count + prior).unique(return_inverse=True, return_counts=True)
        if self.collision == "last":
            # In the original's list of claims: all boxes' nearest prediction, then all boxes' nearest anchor,
            # then the second nearest, …
            rank = torch.arange(predicted[0].shape[1], device=prior.device)
            competing = torch.cat((2 * rank, 2 * rank + 1)).float().expand_as(distance)
        else:
            competing = -distance.float()
        score = torch.full((len(key),), -torch.inf, device=prior.device)
        score = score.scatter_reduce(0, claim.flatten(), competing.flatten(), "amax")
        return Pairs(key // prior_count, key % prior_count), count.float(), score

    def extra_repr(self) -> str:
        return (
            f"topk={self.topk}, positive_iou={self.positive_iou}, ignore_iou={self.ignore_iou}, "
            f"collision={self.collision!r}"
        )
