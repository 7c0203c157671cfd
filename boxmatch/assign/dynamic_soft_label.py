"""Dynamic soft label: each box keeps its cheapest priors inside, with the IoU as class target."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from ..boxes import box_centers
from ..losses.functional import negative_focal, quality_focal
from ..priors import Priors
from ..segments import segment_contenders
from ..structures import Pairs, Predictions, Targets
from .background_cost import BackgroundCost
from .dynamic_k import DynamicKAssigner, Listing, Scene, shared
from .take import class_logits, places

ClassCost = Literal["all", "own"]
Candidates = Literal["inside", "inside_any"]

IOU_EPS = 1e-7
"""Added to the IoU before its logarithm; mmdet's dynamic_soft_label_assigner.py."""

BOUND_SLACK = 1e-4
"""By how much, and by which share, a float32 estimate of a cost may be too high."""

FEW_PAIRS = 2**13
"""As many pairs are scored in less time than it takes to find out which need not be."""


class DynamicSoftLabel(DynamicKAssigner):
    """Inside the box → class, IoU and centre cost → lowest dynamic k → lowest cost owns the prior.

    With u the IoU of the predicted box, p the probabilities of the classes and y their target, u for the
    class of the box and 0 for the others, a pair costs

        sum |y - p|² BCE(p, y)  +  iou_weight · -log u  +  10^(d - center_radius)

    with d the distance of the centres of prior and box in strides of the prior's level. A box keeps the k
    cheapest pairs; k is the sum of its `topk` greatest u, rounded down, at least 1. A prior that several
    boxes keep goes to the box of lowest cost of all that it is a candidate of. The class target is u. A box
    without a prior inside gets no pair.

    Args:
        topk: predictions whose IoU is added up.
        iou_weight: of -log u in the cost.
        center_radius: distance in strides at which a prior costs 1 more; each stride more costs ten times as
            much.
        class_cost: "all" sums over all classes, as the paper and mmdet do; "own" takes the box's class alone,
            as batched implementations do.
        candidates: "inside" lists the priors inside the box; "inside_any" those inside any box of its image,
            as mmdet does: a box may then learn from a prior outside. Their number is that of boxes ×
            candidates of the image.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Lyu et al. 2022 (RTMDet), sec. 3.3; mmdet's dynamic_soft_label_assigner.py.
    """

    def __init__(
        self,
        *,
        topk: int = 13,
        iou_weight: float = 3.0,
        center_radius: float = 3.0,
        class_cost: ClassCost = "all",
        candidates: Candidates = "inside",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(topk=topk, iou_weight=iou_weight, ignore_threshold=ignore_threshold)
        if not math.isfinite(center_radius):
            raise ValueError(f"expected a finite center_radius in strides, got {center_radius}")
        for name, value, kinds in (
            ("class_cost", class_cost, ClassCost),
            ("candidates", candidates, Candidates),
        ):
            if value not in get_args(kinds):
                raise ValueError(f"expected {name} in {get_args(kinds)}, got {value!r}")
        self.center_radius = center_radius
        self.class_cost: ClassCost = class_cost
        self.candidates: Candidates = candidates

    @property
    def topk(self) -> int:
        """Predictions whose IoU is added up."""
        return self._topk

    def listing(self, priors: Priors, targets: Targets) -> Listing:
        inside = Listing(priors.count_inside(targets), priors.inside)
        return inside if self.candidates == "inside" else shared([inside], targets, len(priors))

    def background(self, predictions: Predictions) -> BackgroundCost:
        return BackgroundCost(predictions, lambda logits, quality: negative_focal(logits).sum(1))

    def cost(
        self, scene: Scene, pairs: Pairs, targets: Targets, iou: Float32[Tensor, "N"]
    ) -> Float32[Tensor, "N"]:
        cost, logit, place = self._own_cost(scene, pairs, targets, iou)
        if self.class_cost == "all":
            # Never negative but by rounding.
            cost += (scene.background.at(place) - negative_focal(logit)).clamp_(min=0)
        return cost.float()

    def _own_cost(
        self, scene: Scene, pairs: Pairs, targets: Targets, iou: Float32[Tensor, "N"]
    ) -> tuple[Float64[Tensor, "N"], Float64[Tensor, "N"], Int64[Tensor, "N"]]:
        """The cost with the box's class alone, the logit of that class, and the place of the prior."""
        place = places(pairs, targets, len(scene.priors))
        logit, target = class_logits(scene.predictions, place, pairs, targets).double(), iou.double()
        cost = quality_focal(logit, target) - self.iou_weight * (target + IOU_EPS).log_()
        distance = _distance_in_strides(scene.priors, targets, pairs, torch.float64)
        return cost.add_(torch.pow(10.0, distance - self.center_radius)), logit, place

    def contenders(
        self,
        scene: Scene,
        pairs: Pairs,
        targets: Targets,
        iou: Float32[Tensor, "N"],
        k: Int64[Tensor, "G"],
    ) -> Int64[Tensor, "M"] | None:
        rows = self._nearer(scene, pairs, targets, iou, k) if len(pairs) > FEW_PAIRS else None
        if self.class_cost == "own":
            return rows
        # The sum over all classes is what costs: the cost of the own class tells more of the pairs out.
        if rows is not None:
            pairs, iou = pairs.select(rows), iou.index_select(0, rows)
        bound = self._own_cost(scene, pairs, targets, iou)[0].neg_().float()
        near = segment_contenders(bound, pairs.gt, k, self._gain(scene, pairs, targets, iou))
        return near if rows is None else rows.index_select(0, near)

    def _nearer(
        self,
        scene: Scene,
        pairs: Pairs,
        targets: Targets,
        iou: Float32[Tensor, "N"],
        k: Int64[Tensor, "G"],
    ) -> Int64[Tensor, "M"]:
        """What IoU and distance leave of the pairs; the class cost is not negative."""
        exponent = _distance_in_strides(scene.priors, targets, pairs, torch.float32) - self.center_radius
        # e^87 is as much as float32 holds.
        least = exponent.mul_(math.log(10)).clamp_(max=87).exp_()
        least.sub_((iou + IOU_EPS).log_(), alpha=self.iou_weight)
        bound = least.mul_(BOUND_SLACK - 1).add_(BOUND_SLACK)
        return segment_contenders(bound, pairs.gt, k, self._gain(scene, pairs, targets, iou))

    def _gain(
        self, scene: Scene, pairs: Pairs, targets: Targets, iou: Float32[Tensor, "N"]
    ) -> Callable[[Int64[Tensor, "R"]], Float32[Tensor, "R"]]:
        """The exact cost of the pairs at some positions, its sign changed."""
        return lambda rows: -self.cost(scene, pairs.select(rows), targets, iou.index_select(0, rows))

    def extra_repr(self) -> str:
        return (
            f"topk={self.topk}, iou_weight={self.iou_weight}, center_radius={self.center_radius}, "
            f"class_cost={self.class_cost!r}, candidates={self.candidates!r}, "
            f"ignore_threshold={self.ignore_threshold}"
        )


def _distance_in_strides(priors: Priors, targets: Targets, pairs: Pairs, dtype: torch.dtype) -> Tensor:
    """Of the centres of box and prior."""
    point, center = priors.centers.to(dtype), box_centers(targets.boxes).to(dtype)
    x, y = (
        point[:, axis].index_select(0, pairs.prior).sub_(center[:, axis].index_select(0, pairs.gt))
        for axis in (0, 1)
    )
    distance = x.square_().add_(y.square_()).sqrt_()
    return distance.div_(priors.stride.index_select(0, pairs.prior))
