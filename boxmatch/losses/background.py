"""The focal loss of everything that is not an object: one term per prior and class, summed in few passes.

The score of a class is sigmoid(class logit) · sigmoid(objectness logit); its loss is that of the product.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_LOGIT = 60.0
"""Logits beyond ± this count as that, with the gradient they have there: exp(60) is finite in float32."""

_TABLE_BUDGET = {"cpu": 2**21, "cuda": 2**26}
"""Entries (priors × classes) of the table of negative weights; whole images, at least one."""

_BLOCK_BUDGET = {"cpu": 2**17, "cuda": 2**26}
"""Entries worked on at once, by each thread: on a CPU a block and its temporaries stay in the cache."""


@runtime_checkable
class NegativeWeights(Protocol):
    """Where the background term is not the plain one."""

    @property
    def ignored(self) -> Tensor:
        """(B, P) priors without any term."""

    @property
    def inside(self) -> bool:
        """Whether the negative weight multiplies the score (AutoAssign) or the loss (DualWeight)."""

    def of_images(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Positions in (B · P · C) of the pairs of some images, and 1 - negative weight of each.

        Pairs of one position carry the same value.
        """


@dataclass(frozen=True)
class Exceptions:
    """Negative weights given as one list.

    Args:
        entry: (N,) position of each pair in (B · P · C).
        image: (N,) image of each pair, ascending.
        spared: (N,) 1 - negative weight of the pair; pairs of one entry carry the same value.
        ignored: (B, P) priors without any term.
        inside: whether the negative weight multiplies the score or the loss.
    """

    entry: Tensor
    image: Tensor
    spared: Tensor
    ignored: Tensor
    inside: bool

    @cached_property
    def _ends(self) -> list[int]:
        """0, and up to which pair each image reaches."""
        return [0, *torch.bincount(self.image, minlength=len(self.ignored)).cumsum(0).tolist()]

    def of_images(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See `NegativeWeights`."""
        rows = slice(self._ends[first], self._ends[last])
        return self.entry[rows], self.spared[rows]


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
    logits: Tensor, quality: Tensor | None, weights: NegativeWeights, gamma: float, want_gradient: bool
) -> BackgroundSum:
    """Σ k s^gamma (-ln(1 - s)), or Σ (k s)^gamma (-ln(1 - k s)), with s the score and k the negative weight.

    k is that of the pairs, 0 for priors that take no part and 1 everywhere else.

    Args:
        logits: (B, P, C), contiguous.
        quality: (B, P) objectness logits, or None: then s = sigmoid(class logit).
        weights: k, and which of the two.
        gamma: focal exponent, 0 or at least 1.
        want_gradient: compute the gradients in the same passes.
    """
    images, priors, classes = logits.shape
    at_once = max(1, _budget(_TABLE_BUDGET, logits) // max(priors * classes, 1))
    some_ignored = bool(weights.ignored.any())
    table = logits.new_zeros(min(at_once, images) * priors, classes)  # 1 - k
    grad_logits = torch.empty_like(logits) if want_gradient else None
    grad_quality = torch.empty_like(quality) if want_gradient and quality is not None else None
    value, spared = logits.new_zeros(()), logits.new_zeros(())
    # Some images at a time, so that the table is small; it is cleared where it was written.
    for first in range(0, images, at_once):
        last = min(first + at_once, images)
        entry, saved = weights.of_images(first, last)
        entry = entry - first * priors * classes
        part = table[: (last - first) * priors]
        part.view(-1).index_copy_(0, entry, saved.to(part.dtype))
        spared += part.sum()
        if some_ignored:
            rows = weights.ignored[first:last].flatten().nonzero().squeeze(1)
            part.index_fill_(0, rows, 1)
        rows_of_images = _Rows(
            logits[first:last].view(-1, classes),
            None if quality is None else quality[first:last].reshape(-1, 1),
            part,
            None if grad_logits is None else grad_logits[first:last].view(-1, classes),
            None if grad_quality is None else grad_quality[first:last].view(-1, 1),
        )
        value += _rows_sum(rows_of_images, gamma, weights.inside)
        part.view(-1).index_fill_(0, entry, 0)
        if some_ignored:
            part.index_fill_(0, rows, 0)
    return BackgroundSum(value, spared, grad_logits, grad_quality)


class BackgroundFocal(torch.autograd.Function):
    """`background_sum` as a node of the graph: the same inputs, its value as output."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        quality: Tensor | None,
        weights: NegativeWeights,
        gamma: float,
        want_gradient: bool,
    ) -> Tensor:
        result = background_sum(logits.contiguous(), quality, weights, gamma, want_gradient)
        ctx.save_for_backward(result.grad_logits, result.grad_quality)
        return result.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        by_logits, by_quality = ctx.saved_tensors
        return by_logits * grad, None if by_quality is None else by_quality * grad, None, None, None


class _Rows(NamedTuple):
    """Rows of some images: priors as rows, classes as columns; gradients are written where given."""

    logits: Tensor
    quality: Tensor | None
    spared: Tensor
    grad_logits: Tensor | None
    grad_quality: Tensor | None

    def some(self, rows: slice) -> "_Rows":
        return _Rows(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def _rows_sum(rows: _Rows, gamma: float, inside: bool) -> Tensor:
    count, classes = rows.logits.shape
    threads = torch.get_num_threads() if rows.logits.device.type == "cpu" else 1
    size = max(1, threads * _budget(_BLOCK_BUDGET, rows.logits) // max(classes, 1))
    sums = [
        _block_sum(rows.some(slice(start, start + size)), gamma, inside) for start in range(0, count, size)
    ]
    return torch.stack(sums).sum() if sums else rows.logits.new_zeros(())


def _block_sum(block: _Rows, gamma: float, inside: bool) -> Tensor:
    """Sum of one block, its gradient on the way; every line is one pass over the block."""
    bounded = block.logits.clamp(-MAX_LOGIT, MAX_LOGIT)
    score = bounded.sigmoid()
    off = bounded.neg_().sigmoid_()  # 1 - sigmoid(class logit)
    rest = off  # 1 - score, without the cancellation of a difference
    not_object = None
    if block.quality is not None:
        objectness = block.quality.clamp(-MAX_LOGIT, MAX_LOGIT)
        not_object = torch.sigmoid(-objectness)
        rest = torch.addcmul(off, score, not_object)
        score.mul_(torch.sigmoid(objectness))
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
