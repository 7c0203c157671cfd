"""Where the good candidates of a box end: at the density peak of the better of two Gaussians.

Letters: N pairs, R boxes with a candidate, W the most candidates a box can have.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..segments import segment_lengths
from .mixture import Mixture, fit_mixture

Boundary = Literal["a", "b", "c", "d"]


class Split(NamedTuple):
    """What became of each candidate; neither positive nor ignored is negative."""

    positive: Bool[Tensor, "N"]
    ignored: Bool[Tensor, "N"]
    limit: Float[Tensor, "N"]  # greatest cost among the positives of its box


def split_by_mixture(
    cost: Float[Tensor, "N"], gt: Int64[Tensor, "N"], count: int, width: int, boundary: Boundary
) -> Split:
    """Fit a mixture to the costs of each box and cut them where `boundary` says.

    Costs are sorted, equal ones by position. The foreground are the candidates that the component of low
    costs explains better, or as well. If there are none (or only one candidate in all) all are positive.

    Args:
        cost: finite, less is better.
        gt: the box of each candidate, ascending.
        count: number of boxes.
        width: the most candidates a box can have; the same for every call of a method, so that sums over a
            box do not depend on what else is in the batch.
        boundary: see `PAA`.
    """
    lengths = segment_lengths(gt, count)
    begins, rows = lengths.cumsum(0) - lengths, lengths.nonzero().squeeze(1)
    column = torch.arange(width, device=cost.device)
    valid = column < lengths[rows, None]
    if not len(rows):
        return Split(valid.new_zeros(0), valid.new_zeros(0), cost)
    place = (begins[rows, None] + column).clamp_(max=len(cost) - 1)
    padded = cost.index_select(0, place.flatten()).view_as(place).masked_fill_(~valid, torch.inf)
    costs, order = padded.sort(dim=1, stable=True)
    positive, ignored = _cut(fit_mixture(costs, valid), valid, boundary)
    limit = costs.masked_fill(~positive, -torch.inf).amax(1, keepdim=True).expand_as(costs)
    unsorted = (torch.zeros_like(mask).scatter_(1, order, mask) for mask in (positive, ignored))
    return Split(*(table[valid] for table in (*unsorted, limit)))


def _cut(
    mixture: Mixture, valid: Bool[Tensor, "R W"], boundary: Boundary
) -> tuple[Bool[Tensor, "R W"], Bool[Tensor, "R W"]]:
    """Positive and ignored places of the sorted costs."""
    column = torch.arange(valid.shape[1], device=valid.device)
    foreground = valid & (mixture.component == 0)
    background = valid & (mixture.component == 1)
    peak = _densest(mixture.log_density, foreground)
    none = ~foreground.any(1, keepdim=True)
    positive = valid & ((column <= peak) | none)
    ignored = torch.zeros_like(valid)
    if boundary == "a":
        positive = foreground | (valid & none)
    elif boundary == "b":
        begin = _densest(mixture.log_density, background)
        begin = begin.masked_fill(~background.any(1, keepdim=True), valid.shape[1])
        ignored = valid & ~positive & (column < begin)
    elif boundary == "d":
        ignored = foreground & ~positive
    return positive, ignored


def _densest(log_density: Float[Tensor, "R W"], mask: Bool[Tensor, "R W"]) -> Int64[Tensor, "R 1"]:
    """First place of the greatest density among those in the mask."""
    return log_density.masked_fill(~mask, -torch.inf).argmax(1, keepdim=True)
