"""What ATSS and Dynamic ATSS share: the nearest priors of each box, kept above a threshold of the box's own.

Letters: G boxes, K candidates of each, N = G · K pairs.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from ..priors import Priors
from ..structures import Assignment, Pairs, Targets
from .pick import owners
from .piecewise import piecewise
from .story import Story

Judge = Callable[[Targets, Pairs], tuple[Float32[Tensor, "G K"], Float32[Tensor, "G"]]]
"""The score of each candidate pair of each box, more is better, and what the box asks of it."""

INCLUSIVE_INSIDE_MARGIN = 0.51
"""Margin that reproduces the published code on boxes with inclusive pixel edges (x1, y1, x2 + 1, y2 + 1).

There a centre must be more than 0.01 px from the edges x1 and x2 of the inclusive box; as a plain box it is
half a pixel larger on every side.
"""


def assign_above_threshold(
    priors: Priors, targets: Targets, judge: Judge, story: Story, *, topk: int, inside_margin: float
) -> Assignment:
    """Nearest `topk` cells per level → score → at or above the threshold, centre inside → highest score.

    Args:
        judge: gives scores and thresholds; looks at each box alone.
        topk: cells per level whose anchors are candidates.
        inside_margin: pixels by which the prior's centre must lie inside the box, and more.
    """
    count = priors.count_nearest(topk, whole_cells=True)

    def select(part: Targets) -> tuple[Pairs, tuple[Tensor]]:
        pairs = priors.nearest(part, topk, whole_cells=True)
        score, threshold = judge(part, pairs)
        above = (score >= threshold[:, None]).flatten()
        if story.active:
            story.candidates(pairs, score.flatten(), threshold.repeat_interleave(count))
        story.keep(above, otherwise="below_threshold")
        rows = above.nonzero().squeeze(1)
        pairs, values = pairs.select(rows), score.flatten().index_select(0, rows)
        inside = center_inside(priors, part, pairs, inside_margin)
        story.keep(inside, otherwise="outside")
        rows = inside.nonzero().squeeze(1)
        return pairs.select(rows), (values.index_select(0, rows),)

    lengths = torch.full_like(targets.labels, count)
    selected, (score,) = piecewise(targets, lengths, select, story)
    pairs = selected.select(owners(selected, score, targets, len(priors)))
    return Assignment.hard(pairs, targets, len(priors), levels=priors.levels, candidates=selected)


def center_inside(priors: Priors, targets: Targets, pairs: Pairs, margin: float) -> Bool[Tensor, "N"]:
    """Whether the centre of each pair's prior lies in the box, more than `margin` pixels from every edge."""
    center = priors.centers.index_select(0, pairs.prior)
    low, high = targets.boxes.index_select(0, pairs.gt).split(2, dim=1)
    return torch.minimum(center - low, high - center).amin(1) > margin


def mean_and_std(scores: Float[Tensor, "G K"]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each row, float64; the deviation of a single entry is 0.

    In float64 the mean of equal scores is that score, and the last bit of the threshold does not depend on
    the order of summation, which differs between devices.
    """
    scores = scores.double()
    mean = scores.mean(1)
    variance = (scores - mean[:, None]).square_().sum(1).div_(max(scores.shape[1] - 1, 1))
    return mean, variance.sqrt_()


def check_options(topk: int, inside_margin: float) -> None:
    """Raise ValueError for numbers that no rule of this kind can work with."""
    if topk < 1 or not 0 <= inside_margin < math.inf:
        raise ValueError(
            f"expected topk of 1 or more and inside_margin of 0 or more px, got {topk=}, {inside_margin=}"
        )
