"""What it costs to let a query learn a box: class, place and overlap, weighed as DETR does."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from ..boxes import pair_giou, xyxy_to_cxcywh
from ..losses.box_similarity import MAX_COORDINATE
from ..losses.functional import sigmoid_focal
from ..spatial.pieces import in_pieces

ClassCost = Literal["focal", "softmax"]

MAX_LOGIT = 1e4
"""Logits beyond this are held there, so that costs are finite."""


@dataclass(frozen=True)
class QueryCost:
    """class_weight · class + box_weight · L1 + giou_weight · (-GIoU).

    Args:
        class_cost: "softmax" for minus the probability of the box's class, "focal" for the focal loss of a
            positive less that of a negative.
        class_weight: of the class term.
        box_weight: of the L1 distance of (centre, width, height), in shares of the picture.
        giou_weight: of the overlap.

    Raises:
        ValueError: an argument is out of range.
    """

    class_cost: ClassCost
    class_weight: float
    box_weight: float
    giou_weight: float

    def __post_init__(self) -> None:
        if self.class_cost not in get_args(ClassCost):
            raise ValueError(f"expected class_cost in {get_args(ClassCost)}, got {self.class_cost!r}")
        weights = (self.class_weight, self.box_weight, self.giou_weight)
        if not (min(weights) >= 0 and 0 < sum(weights) < torch.inf):
            raise ValueError(
                f"expected finite weights of 0 or more, one above 0, got class_weight={weights[0]}, "
                f"box_weight={weights[1]}, giou_weight={weights[2]}"
            )

    def __call__(
        self,
        logits: Float32[Tensor, "P C"],
        predicted: Float32[Tensor, "P 4"],
        labels: Int64[Tensor, "g"],
        boxes: Float32[Tensor, "g 4"],
        size: tuple[float, float],
    ) -> Float32[Tensor, "g P"]:
        """Cost of every pair of one picture, finite for all finite predictions.

        Args:
            logits: class logits of each query.
            predicted: its box, xyxy.
            labels: class of each ground truth, below C.
            boxes: the ground truths, in the unit of `predicted`.
            size: (height, width) of the picture in that unit.
        """
        height, width = size
        whole = torch.tensor([width, height, width, height], dtype=torch.float32, device=boxes.device)
        log_total = logits.double().logsumexp(1) if self.class_cost == "softmax" else None
        predicted = predicted.clamp(-MAX_COORDINATE, MAX_COORDINATE)
        predicted_cxcywh = xyxy_to_cxcywh(predicted) / whole

        def part(piece: slice) -> tuple[Tensor, ...]:
            cost = self.class_weight * _class_term(logits, labels[piece], log_total)
            distance = (xyxy_to_cxcywh(boxes[piece])[:, None] / whole - predicted_cxcywh).abs_()
            # Added one by one: a sum over an axis may take another order at another length.
            x, y, w, h = distance.unbind(2)
            cost += self.box_weight * (x + y + w + h)
            giou = pair_giou(*torch.broadcast_tensors(boxes[piece][:, None], predicted))
            return (cost.sub_(self.giou_weight * giou),)

        (cost,) = in_pieces(torch.full_like(labels, len(predicted)), part)
        return cost


def _class_term(
    logits: Float32[Tensor, "P C"], labels: Int64[Tensor, "g"], log_total: Float64[Tensor, "P"] | None
) -> Float32[Tensor, "g P"]:
    """Cost of the class; by softmax where `log_total`, the logarithm of its denominator, is given."""
    # In float64 and rounded: float32's exp and log depend on the place in the tensor.
    logit: Float[Tensor, "g P"] = logits.T.index_select(0, labels).double()
    if log_total is not None:
        return -(logit - log_total).exp_().float()
    logit.clamp_(-MAX_LOGIT, MAX_LOGIT)
    positive, negative = (sigmoid_focal(logit, torch.full_like(logit, target)) for target in (1.0, 0.0))
    return (positive - negative).float()
