"""The focal loss of everything that is not an object: one term per prior and class, summed in few passes.

The score of a class is sigmoid(class logit) · sigmoid(objectness logit); its loss is that of the product.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_LOGIT = 60.0
"""Logits beyond ± this count as that, with the gradient they have there: exp(60) is finite in float32."""

_IMAGES_BUDGET = {"cpu": 2**21, "cuda": 2**26}
"""Entries (priors × classes) of the table of exceptions; whole images, at least one."""

_BLOCK_BUDGET = {"cpu": 2**16, "cuda": 2**26}
"""Entries worked on at once: on a CPU a block and its five temporaries stay in the cache."""


@dataclass(frozen=True)
class Exceptions:
    """Where the background term is not the plain one.

    Args:
        entry: (N,) position of each pair in (B · P · C); ascending in the image.
        image: (N,) image of each pair, ascending.
        spared: (N,) 1 - negative weight of the pair; pairs of one entry carry the same value.
        ignored: (B, P) priors without any term.
        inside: whether the negative weight multiplies the score (AutoAssign) or the loss (DualWeight).
    """

    entry: Tensor
    image: Tensor
    spared: Tensor
    ignored: Tensor
    inside: bool


class BackgroundSum(NamedTuple):
    """The sum and what belongs to it.

    Args:
        value: () sum of all terms.
        spared: () sum of 1 - negative weight over all priors and classes, each counted once.
        grad_logits: (B, P, C) gradient of `value`, or None if not asked for.
        grad_quality: (B, P) likewise.
    """

    value: Tensor
    spared: Tensor
    grad_logits: Tensor | None
    grad_quality: Tensor | None


def background_sum(
    logits: Tensor, quality: Tensor | None, exceptions: Exceptions, gamma: float, want_gradient: bool
) -> BackgroundSum:
    """Σ k · s^gamma · (-ln(1 - s)) with s the score and k the negative weight; see `Exceptions.inside`.

    Args:
        logits: (B, P, C), contiguous.
        quality: (B, P) objectness logits, or None: then s = sigmoid(class logit).
        gamma: focal exponent, 0 or at least 1.
        want_gradient: compute the gradients in the same passes.
    """
    images, priors, classes = logits.shape
    at_once = max(1, _budget(_IMAGES_BUDGET, logits) // max(priors * classes, 1))
    counts = torch.bincount(exceptions.image, minlength=images)
    ends = [0, *counts.cumsum(0).tolist()]
    some_ignored = bool(exceptions.ignored.any())
    table = logits.new_zeros(min(at_once, images) * priors, classes)
    grad_logits = torch.empty_like(logits) if want_gradient else None
    grad_quality = torch.empty_like(quality) if want_gradient and quality is not None else None
    value, spared = logits.new_zeros(()), logits.new_zeros(())
    # Some images at a time, so that the table of exceptions is small and is cleared where it was written.
    for first in range(0, images, at_once):
        last = min(first + at_once, images)
        mine = slice(ends[first], ends[last])
        entry = exceptions.entry[mine] - first * priors * classes
        part = table[: (last - first) * priors]
        part.view(-1).index_copy_(0, entry, exceptions.spared[mine])
        spared += part.sum()
        if some_ignored:
            rows = exceptions.ignored[first:last].flatten().nonzero().squeeze(1)
            part.index_fill_(0, rows, 1)
        value += _rows_sum(
            _Rows(
                logits[first:last].view(-1, classes),
                None if quality is None else quality[first:last].reshape(-1, 1),
                part,
                None if grad_logits is None else grad_logits[first:last].view(-1, classes),
                None if grad_quality is None else grad_quality[first:last].view(-1, 1),
            ),
            gamma,
            exceptions.inside,
        )
        part.view(-1).index_fill_(0, entry, 0)
        if some_ignored:
            part.index_fill_(0, rows, 0)
    return BackgroundSum(value, spared, grad_logits, grad_quality)


class _Rows(NamedTuple):
    """Rows of some images: priors as rows, classes as columns; gradients are written where given."""

    logits: Tensor
    quality: Tensor | None
    spared: Tensor
    grad_logits: Tensor | None
    grad_quality: Tensor | None

    def block(self, rows: slice) -> "_Rows":
        return _Rows(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def _rows_sum(rows: _Rows, gamma: float, inside: bool) -> Tensor:
    size = max(1, _budget(_BLOCK_BUDGET, rows.logits) // max(rows.logits.shape[1], 1))
    sums = [
        _block_sum(rows.block(slice(start, start + size)), gamma, inside)
        for start in range(0, len(rows.logits), size)
    ]
    return torch.stack(sums).sum() if sums else rows.logits.new_zeros(())


def _block_sum(block: _Rows, gamma: float, inside: bool) -> Tensor:
    """Sum of one block, its gradient on the way; every line is one pass over the block."""
    score = block.logits.clamp(-MAX_LOGIT, MAX_LOGIT).exp_()
    off = (score + 1).reciprocal_()  # 1 - sigmoid(class logit)
    score.mul_(off)
    rest = off  # 1 - score, without the cancellation of a difference
    not_object = None
    if block.quality is not None:
        bounded = block.quality.clamp(-MAX_LOGIT, MAX_LOGIT)
        not_object = torch.sigmoid(-bounded)
        rest = torch.addcmul(off, score, not_object)
        score.mul_(torch.sigmoid(bounded))
    if inside:
        rest = torch.addcmul(rest, score, block.spared)
        score.addcmul_(score, block.spared, value=-1)
    log = rest.log()
    focal = score * score if gamma == 2 else score.pow(gamma)
    if not inside:
        focal.addcmul_(focal, block.spared, value=-1)
    loss = log.mul_(focal)  # with the wrong sign
    total = loss.sum().neg_()
    if block.grad_logits is not None:
        # Slope in ln(score): gamma · loss + focal · score / (1 - score).
        slope = focal.mul_(score).div_(rest).sub_(loss, alpha=gamma)
        if block.grad_quality is not None and not_object is not None:
            torch.mul(slope.sum(1, keepdim=True), not_object, out=block.grad_quality)
        torch.mul(slope, off, out=block.grad_logits)
    return total


def _budget(budgets: dict[str, int], values: Tensor) -> int:
    return budgets["cpu" if values.device.type == "cpu" else "cuda"]


class BackgroundFocal(torch.autograd.Function):
    """`background_sum` as a node of the graph; inputs as there, output its value."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        quality: Tensor | None,
        exceptions: Exceptions,
        gamma: float,
        want_gradient: bool,
    ) -> Tensor:
        result = background_sum(logits.contiguous(), quality, exceptions, gamma, want_gradient)
        ctx.save_for_backward(result.grad_logits, result.grad_quality)
        return result.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits_slope, quality_slope = ctx.saved_tensors
        return logits_slope * grad, None if quality_slope is None else quality_slope * grad, None, None, None
