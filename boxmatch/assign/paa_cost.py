"""What PAA's cost of a pair is made of: the losses that the network would pay for it.

Letters: N pairs, C classes.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from ..boxes import take_boxes
from ..delta_coder import DeltaCoder
from ..losses.functional import bce, check_gamma, negative_focal, sigmoid_focal
from ..losses.giou import giou_loss
from ..priors import Priors
from ..structures import Pairs, Predictions, Targets
from .take import class_logits, places, predicted_boxes

ClassCost = Literal["focal", "bce"]
BoxCost = Literal["giou", "l1"]

MAX_COST = 1e8
"""Costs above it count as that, so that the mixture stays finite; the published code gives it to priors that
match no box."""

LOGIT_BUDGET = 2**14
"""Logits worked on at once: 128 KB in float64, which a cache holds. Results do not depend on it."""


@dataclass(frozen=True)
class PairCosts:
    """The cost of each pair, in two parts: one that costs little to find out, and the rest of it.

    Losses with an exponential or a logarithm are float64, rounded to float32 (see `boxmatch.reproducible`).

    Args:
        class_cost: "focal" or "bce", summed over all classes.
        box_cost: "giou" or "l1".
        alpha: weight of positives in the focal loss, in [0, 1].
        gamma: exponent of the focal loss, 0 or at least 1.
        inclusive_pixels: of the GIoU loss.
        coder: of the deltas for "l1".

    Raises:
        ValueError: an argument is out of range.
    """

    class_cost: ClassCost
    box_cost: BoxCost
    alpha: float
    gamma: float
    inclusive_pixels: bool
    coder: DeltaCoder

    def __post_init__(self) -> None:
        if self.class_cost not in get_args(ClassCost):
            raise ValueError(f"expected class_cost in {get_args(ClassCost)}, got {self.class_cost!r}")
        if self.box_cost not in get_args(BoxCost):
            raise ValueError(f"expected box_cost in {get_args(BoxCost)}, got {self.box_cost!r}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"expected alpha in [0, 1], got {self.alpha}")
        check_gamma(self.gamma)

    def least(
        self, pairs: Pairs, priors: Priors, targets: Targets, predictions: Predictions
    ) -> Float32[Tensor, "N"]:
        """The box loss and the class loss of the box's own class: the cost is this or more."""
        place = places(pairs, targets, len(priors))
        logits = class_logits(predictions, place, pairs, targets).double()
        ones = torch.ones_like(logits)
        if self.class_cost == "bce":
            own_class = bce(logits, ones)
        else:
            own_class = sigmoid_focal(logits, ones, self.alpha, self.gamma)
        return (own_class.float() + self._box(pairs, place, priors, targets, predictions)).clamp_(
            max=MAX_COST
        )

    def whole(
        self,
        least: Float32[Tensor, "N"],
        pairs: Pairs,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
    ) -> Float32[Tensor, "N"]:
        """The cost: `least` and the class loss of all other classes."""
        place = places(pairs, targets, len(priors))
        labels = targets.labels.index_select(0, pairs.gt)
        logits = predictions.logits.flatten(0, 1)
        rows = max(1, LOGIT_BUDGET // logits.shape[1])
        rest = [least.new_zeros(0)]
        for some, label in zip(place.split(rows), labels.split(rows)):
            loss = self._negative(logits.index_select(0, some).double())
            rest.append(loss.scatter_(1, label[:, None], 0).sum(1).float())
        return torch.cat(rest).add_(least).clamp_(max=MAX_COST)

    def _negative(self, logits: Float64[Tensor, "N C"]) -> Float64[Tensor, "N C"]:
        """Class loss of each logit where the box is not of the class."""
        if self.class_cost == "bce":
            return bce(logits, torch.zeros_like(logits))
        return negative_focal(logits, self.gamma).mul_(1 - self.alpha)

    def _box(
        self,
        pairs: Pairs,
        place: Int64[Tensor, "N"],
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
    ) -> Float32[Tensor, "N"]:
        gts = take_boxes(targets.boxes, pairs.gt)
        if self.box_cost == "giou":
            predicted = predicted_boxes(predictions, place, "PAA")
            return giou_loss(predicted, gts, inclusive_pixels=self.inclusive_pixels)
        deltas = predictions.deltas.flatten(0, 1).index_select(0, place).double()
        return (deltas - self.coder.encode_xyxy(gts.double(), priors, pairs.prior)).abs_().sum(1).float()
