"""The sums of dual weighting, with gradients written by hand: pairs and classes need no graph."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from ..boxes import pair_giou, take_boxes
from ..structures import Assignment, Targets
from .background import Exceptions, background_sum

_PAIRS_AT_ONCE = 2**18
"""Pairs worked on at once, some 40 MB."""


@dataclass(frozen=True)
class SoftPairs:
    """The pairs of an assignment as rows of the flattened predictions.

    Args:
        place: (N,) position of the prior in (B · P).
        entry: (N,) position of the prior and the class of the ground truth in (B · P · C).
        gt: (N,) row of the ground truth.
        boxes: (G, 4) all ground truths.
        weight: (N,) positive weight.
        background: the negative weights.
    """

    place: Tensor
    entry: Tensor
    gt: Tensor
    boxes: Tensor
    weight: Tensor
    background: Exceptions

    @classmethod
    def of(cls, assignment: Assignment, targets: Targets, classes: int, *, inside: bool) -> "SoftPairs":
        """Look up the rows.

        Args:
            classes: number of class logits.
            inside: whether the negative weight multiplies the score, see `Exceptions`.

        Raises:
            ValueError: a label is no class.
        """
        pairs, priors = assignment.pairs, assignment.ignored.shape[1]
        # Every index below depends on it.
        if len(targets) and int(targets.labels.max()) >= classes:
            raise ValueError(
                f"expected labels below {classes}, the number of classes of the predictions, got "
                f"{int(targets.labels.max())}; give the detector as many classes as the data has"
            )
        image = targets.image.index_select(0, pairs.gt)
        place = image * priors + pairs.prior
        entry = (place * classes).add_(targets.labels.index_select(0, pairs.gt))
        spared = 1 - assignment.neg_weight
        background = Exceptions(entry, image, spared, assignment.ignored, inside)
        return cls(place, entry, pairs.gt, targets.boxes, assignment.weight, background)

    def pieces(self) -> list[slice]:
        """Runs of pairs to be worked on at once."""
        starts = range(0, len(self.place), _PAIRS_AT_ONCE)
        return [slice(start, start + _PAIRS_AT_ONCE) for start in starts]


class DualWeightSums(torch.autograd.Function):
    """Σ w (-ln s), Σ w (1 - GIoU), Σ P s^gamma (-ln(1 - s)), and Σ (1 - P), which has no gradient.

    Inputs: class logits (B, P, C), objectness logits (B, P) or None, boxes (B, P, 4), `SoftPairs`, gamma,
    whether a gradient will be asked for.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        quality: Tensor | None,
        boxes: Tensor,
        pairs: SoftPairs,
        gamma: float,
        want_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = logits.contiguous()
        background = background_sum(logits, quality, pairs.background, gamma, want_gradient)
        class_sum = _class_sum(logits, quality, pairs)
        box_sum, grad_boxes = _box_sum(boxes, pairs, want_gradient)
        ctx.pairs = pairs
        ctx.save_for_backward(logits, quality, grad_boxes, background.grad_logits, background.grad_quality)
        ctx.mark_non_differentiable(background.spared)
        return class_sum, box_sum, background.value, background.spared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_class: Tensor, grad_box: Tensor, grad_background: Tensor, _: Tensor) -> Any:
        logits, quality, boxes_slope, logits_slope, quality_slope = ctx.saved_tensors
        grad_logits = logits_slope * grad_background
        grad_quality = None if quality is None else quality_slope * grad_background
        pairs: SoftPairs = ctx.pairs
        for piece in pairs.pieces():
            weight = pairs.weight[piece] * -grad_class
            entry, place = pairs.entry[piece], pairs.place[piece]
            slope = logits.view(-1).index_select(0, entry).neg_().sigmoid_().mul_(weight)
            grad_logits.view(-1).index_add_(0, entry, slope)
            if quality is not None and grad_quality is not None:
                slope = quality.flatten().index_select(0, place).neg_().sigmoid_().mul_(weight)
                grad_quality.view(-1).index_add_(0, place, slope)
        return grad_logits, grad_quality, boxes_slope * grad_box, None, None, None


def _class_sum(logits: Tensor, quality: Tensor | None, pairs: SoftPairs) -> Tensor:
    """Σ w (-ln s), with ln s = ln sigmoid(class logit) + ln sigmoid(objectness logit)."""
    total = logits.new_zeros(())
    for piece in pairs.pieces():
        surprise = softplus(-logits.view(-1).index_select(0, pairs.entry[piece]))
        if quality is not None:
            surprise += softplus(-quality.flatten().index_select(0, pairs.place[piece]))
        total += surprise.mul_(pairs.weight[piece]).sum()
    return total


def _box_sum(boxes: Tensor, pairs: SoftPairs, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Σ w (1 - GIoU), and its gradient."""
    total = boxes.new_zeros(())
    flat = boxes.reshape(-1, 4)
    gradient = torch.zeros_like(flat) if want_gradient else None
    for piece in pairs.pieces():
        place = pairs.place[piece]
        gts = take_boxes(pairs.boxes.to(boxes.dtype), pairs.gt[piece])
        with torch.set_grad_enabled(want_gradient):
            predicted = take_boxes(flat, place).requires_grad_(want_gradient)
            part = ((1 - pair_giou(predicted, gts)) * pairs.weight[piece]).sum()
        if gradient is not None:
            gradient.index_add_(0, place, torch.autograd.grad(part, predicted)[0])
        total += part.detach()
    return total, None if gradient is None else gradient.view_as(boxes)
