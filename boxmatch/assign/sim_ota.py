"""SimOTA: each box keeps its cheapest priors near its centre, as many as its predictions deserve."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor
from torch.nn.functional import pad

from ..priors import Priors
from ..structures import Pairs, Predictions, Targets
from .background_cost import BackgroundCost
from .dynamic_k import DynamicKAssigner, Listing, Scene, shared
from .points import most_within, near_center, side_distances
from .take import class_logits, places, quality_logits

Candidates = Literal["center", "inside_and_center"]

IOU_EPS = 1e-8
"""Added to the IoU before its logarithm; yolox/models/yolo_head.py."""

PENALTY = 1e6
"""Cost of a pair that the rule does not allow; the same file."""

LEAST_PROBABILITY = math.exp(-100)
"""torch's binary cross entropy of a probability, which the original calls, ends at 100."""


class SimOTA(DynamicKAssigner):
    """Near the centre → class cost + IoU cost → lowest dynamic k → lowest cost owns the prior.

    With p the probability of a class, the geometric mean of that of the class and that of an object where the
    network has such a branch, a pair costs the binary cross entropy of all classes against the box's label
    plus `iou_weight` · -log IoU of the predicted box. A box keeps the k cheapest pairs; k is the sum of the
    IoU of its `candidate_topk` best predictions, rounded down, at least 1. A prior that several boxes keep
    goes to the box of lowest cost of all that it is a candidate of. The class target is the IoU. A box
    without a prior near its centre gets no pair.

    Args:
        center_radius: half side of the square around the box's centre that the prior's centre must lie in, in
            strides of its level, border excluded; 1.5 in YOLOX today, 2.5 in its paper.
        candidates: "center" as in YOLOX today, whether inside the box or not; "inside_and_center" as in the
            paper's version.
        candidate_topk: predictions whose IoU is added up.
        iou_weight: of -log IoU in the cost.
        legacy_penalty: also list the pairs that the rule does not allow, at a cost of 1e6 more, as the
            originals do: a box may then learn from another box's candidates. Their number is that of boxes ×
            candidates of the image.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Ge et al. 2021 (YOLOX), sec. 2.1; Megvii-BaseDetection/YOLOX, yolox/models/yolo_head.py.
    """

    def __init__(
        self,
        *,
        center_radius: float = 1.5,
        candidates: Candidates = "center",
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        legacy_penalty: bool = False,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(topk=candidate_topk, iou_weight=iou_weight, ignore_threshold=ignore_threshold)
        if not 0 < center_radius < torch.inf:
            raise ValueError(f"expected center_radius above 0 strides, got {center_radius}")
        if candidates not in get_args(Candidates):
            raise ValueError(f"expected candidates in {get_args(Candidates)}, got {candidates!r}")
        self.center_radius = center_radius
        self.candidates: Candidates = candidates
        self.legacy_penalty = legacy_penalty

    @property
    def candidate_topk(self) -> int:
        """Predictions whose IoU is added up."""
        return self._topk

    def listing(self, priors: Priors, targets: Targets) -> Listing:
        def near(part: Targets) -> Pairs:
            return priors.within(part, self.center_radius)

        def near_and_inside(part: Targets) -> Pairs:
            pairs = near(part)
            return pairs.select(side_distances(priors, part, pairs).amin(1) > 0)

        most = torch.full_like(targets.labels, most_within(priors, self.center_radius))
        if not self.legacy_penalty:
            return Listing(most, near if self.candidates == "center" else near_and_inside)
        listings = [Listing(most, near)]
        if self.candidates == "inside_and_center":
            listings.append(Listing(priors.count_inside(targets), priors.inside))
        return shared(listings, targets, len(priors))

    def background(self, predictions: Predictions) -> BackgroundCost:
        return BackgroundCost(predictions, _cross_entropy_of_background)

    def cost(
        self, scene: Scene, pairs: Pairs, targets: Targets, iou: Float32[Tensor, "N"]
    ) -> Float32[Tensor, "N"]:
        place = places(pairs, targets, len(scene.priors))
        logit = class_logits(scene.predictions, place, pairs, targets).double()
        quality = quality_logits(scene.predictions, place)
        present, absent = _probabilities(logit, None if quality is None else quality.double())
        cost = scene.background.at(place) + absent.log_() - present.log_()
        cost -= self.iou_weight * (iou.double() + IOU_EPS).log_()
        if self.legacy_penalty:
            cost += PENALTY * ~self._allowed(scene.priors, targets, pairs)
        return cost.float()

    def _allowed(self, priors: Priors, targets: Targets, pairs: Pairs) -> Bool[Tensor, "N"]:
        near = near_center(priors, targets, pairs, self.center_radius)
        if self.candidates == "center":
            return near
        return near & (side_distances(priors, targets, pairs).amin(1) > 0)

    def extra_repr(self) -> str:
        return (
            f"center_radius={self.center_radius}, candidates={self.candidates!r}, "
            f"candidate_topk={self.candidate_topk}, iou_weight={self.iou_weight}, "
            f"legacy_penalty={self.legacy_penalty}, ignore_threshold={self.ignore_threshold}"
        )


def _probabilities(
    logit: Float64[Tensor, "*S"], quality: Float64[Tensor, "*#S"] | None
) -> tuple[Float64[Tensor, "*S"], Float64[Tensor, "*S"]]:
    """Of each class being there, and of its not being there."""
    present = logit.sigmoid()
    if quality is None:
        absent = logit.neg().sigmoid_()
    else:
        present = present.mul_(quality.sigmoid()).sqrt_()
        absent = 1 - present
    return present.clamp_(min=LEAST_PROBABILITY), absent.clamp_(min=LEAST_PROBABILITY)


def _cross_entropy_of_background(
    logits: Float64[Tensor, "V C"], quality: Float64[Tensor, "V 1"] | None
) -> Float64[Tensor, "V"]:
    absent = _probabilities(logits, quality)[1]
    # One logarithm for the product of four, which is no less than 1e-174.
    absent = pad(absent, (0, -absent.shape[1] % 4), value=1.0)
    for _ in range(2):
        half = absent.shape[1] // 2
        absent = absent[:, :half] * absent[:, half:]
    return absent.log_().sum(1).neg_()
