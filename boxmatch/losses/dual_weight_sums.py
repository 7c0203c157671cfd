"""The sums of dual weighting, with gradients written by hand: pairs and classes need no graph."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from ..boxes import pair_giou, take_boxes
from .background import background_sum
from .giou_slope import giou_loss_and_slope
from .soft_pairs import SoftPairs


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
        background = background_sum(logits, quality, pairs, gamma, want_gradient)
        class_sum = _class_sum(logits, quality, pairs)
        box_sum, by_boxes = _box_sum(boxes, pairs, want_gradient)
        ctx.pairs = pairs
        ctx.save_for_backward(logits, quality, by_boxes, background.grad_logits, background.grad_quality)
        ctx.mark_non_differentiable(background.spared)
        return class_sum, box_sum, background.value, background.spared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_class: Tensor, grad_box: Tensor, grad_background: Tensor, _: Tensor) -> Any:
        logits, quality, by_boxes, by_logits, by_quality = ctx.saved_tensors
        grad_logits = by_logits * grad_background
        grad_quality = None if quality is None else by_quality * grad_background
        pairs: SoftPairs = ctx.pairs
        for piece in pairs.pieces():
            weight = pairs.assignment.weight[piece].to(logits.dtype) * -grad_class
            entry = pairs.entries(piece)
            slope = logits.view(-1).index_select(0, entry).neg_().sigmoid_().mul_(weight)
            grad_logits.view(-1).index_add_(0, entry, slope)
            if quality is not None and grad_quality is not None:
                place = pairs.places(piece)
                slope = quality.flatten().index_select(0, place).neg_().sigmoid_().mul_(weight)
                grad_quality.view(-1).index_add_(0, place, slope)
        return grad_logits, grad_quality, by_boxes * grad_box, None, None, None


def _class_sum(logits: Tensor, quality: Tensor | None, pairs: SoftPairs) -> Tensor:
    """Σ w (-ln s), with ln s = ln sigmoid(class logit) + ln sigmoid(objectness logit)."""
    total = logits.new_zeros(())
    for piece in pairs.pieces():
        surprise = softplus(-logits.view(-1).index_select(0, pairs.entries(piece)))
        if quality is not None:
            surprise += softplus(-quality.flatten().index_select(0, pairs.places(piece)))
        total += surprise.mul_(pairs.assignment.weight[piece]).sum()
    return total


def _box_sum(boxes: Tensor, pairs: SoftPairs, want_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Σ w (1 - GIoU), and its gradient."""
    total = boxes.new_zeros(())
    # By column, and so is the gradient: arithmetic on long lists of boxes is then twice as fast.
    columns = boxes.reshape(-1, 4).T.contiguous()
    gradient = torch.zeros_like(columns) if want_gradient else None
    for piece in pairs.pieces():
        place, weight = pairs.places(piece), pairs.assignment.weight[piece]
        predicted, gts = take_boxes(columns.T, place), pairs.boxes(piece, boxes.dtype)
        if gradient is None:
            loss = 1 - pair_giou(predicted, gts)
        else:
            loss, slope = giou_loss_and_slope(predicted, gts)
            gradient.index_add_(1, place, slope.mul_(weight))
        total += loss.mul_(weight).sum()
    return total, None if gradient is None else gradient.T.reshape_as(boxes)
