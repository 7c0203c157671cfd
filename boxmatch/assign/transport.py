"""Optimal transport of labels from the boxes and the background of each image to its priors, on pairs.

Letters: B images, G ground truths, N candidate pairs, V priors of the batch that are in a candidate pair.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..segments import segment_lengths, segment_max, segment_sum
from ..structures import Pairs, Targets
from .take import places

MASS_EPS = 1e-8
"""Added to supplies and demands before the logarithm, and the least supply of the background; OTA's code."""


@dataclass(frozen=True)
class Transport:
    """Labels to be given: each box has some, the background of its image the rest, and a prior wants one.

    The dense form has a row per box and one for the background, a column per prior, and the cost 1e6 where a
    pair is no candidate: divided by epsilon and exponentiated that is 0 to the last bit, so only candidate
    pairs and the background's row matter. Of that row,

    * a constant added to a column changes nothing, as the column's own potential takes it up. So what a prior
      costs as background is subtracted from its column: the background costs 0 everywhere, and of a sum over
      all classes only the box's own class is left;
    * a prior that is no candidate has the background alone: its potential is known without looking at it, and
      all of them together count as often as there are such priors.

    Args:
        gain: less cost than as background, over epsilon.
        gt: box of each pair, ascending.
        column: of each pair, 0 .. V - 1.
        gt_image: image of each box.
        column_image: image of each column.
        idle: number of priors of each image that are in no pair.
    """

    gain: Float64[Tensor, "N"]
    gt: Int64[Tensor, "N"]
    column: Int64[Tensor, "N"]
    gt_image: Int64[Tensor, "G"]
    column_image: Int64[Tensor, "V"]
    idle: Int64[Tensor, "B"]

    @classmethod
    def of(cls, pairs: Pairs, gain: Float64[Tensor, "N"], targets: Targets, prior_count: int) -> "Transport":
        """The problem of the whole batch: one for each image, none of which meets another."""
        place = places(pairs, targets, prior_count)
        used = torch.zeros(targets.batch_size * prior_count, dtype=torch.bool, device=place.device)
        used.index_fill_(0, place, True)
        column_image = used.nonzero().squeeze(1) // max(prior_count, 1)
        idle = prior_count - segment_lengths(column_image, targets.batch_size)
        column = used.cumsum(0).index_select(0, place) - 1
        return cls(gain, pairs.gt, column, targets.image, column_image, idle)

    def plan(self, supply: Int64[Tensor, "G"], iterations: int) -> "Plan":
        """Who gives how much to whom, at least cost up to the smoothing.

        Args:
            supply: labels of each box; those of boxes without a pair stay with the background.
            iterations: of Sinkhorn's algorithm, which scales columns, then rows, to demand and supply.

        Source: Cuturi 2013; Ge et al. 2021 (OTA), algorithm 1, and SinkhornDistance in its code.
        """
        images = len(self.idle)
        served = supply * (segment_lengths(self.gt, len(supply)) > 0)
        rest = self.idle + segment_lengths(self.column_image, images)
        rest = (rest - segment_sum(served, self.gt_image, images)).double().clamp(min=MASS_EPS)
        log_supply, log_rest = (served.double() + MASS_EPS).log(), (rest + MASS_EPS).log()
        log_demand, log_idle = math.log(1 + MASS_EPS), self.idle.double().log()
        row, background = torch.zeros_like(log_supply), torch.zeros_like(log_rest)
        wanted: Tensor | None = None
        given: Tensor | None = None
        left: Tensor | None = None
        # Each turn needs the one before. Potentials are divided by epsilon, as the gain is.
        for _ in range(iterations):
            mass = self.gain + row.index_select(0, self.gt)
            beside = background.index_select(0, self.column_image)
            wanted = _logsumexp(mass, self.column, len(beside), beside, wanted)
            column = log_demand - wanted
            mass = self.gain + column.index_select(0, self.column)
            given = _logsumexp(mass, self.gt, len(row), None, given)
            row = log_supply - given
            idle = log_demand - background
            left = _logsumexp(column, self.column_image, images, log_idle + idle, left)
            background = log_rest - left
        return Plan(
            mass + row.index_select(0, self.gt),
            column + background.index_select(0, self.column_image),
            idle + background,
        )

    def shares(self, plan: "Plan") -> tuple[Float64[Tensor, "N"], Float64[Tensor, "N"]]:
        """What each pair carries, and what the background carries to its prior.

        Both are logarithms, and relative to the most that the box, or the background, carries to any prior.
        """
        most = segment_max(plan.mass, self.gt, len(self.gt_image))
        background_most = segment_max(plan.background, self.column_image, len(self.idle))
        background_most = torch.where(
            self.idle > 0, torch.maximum(background_most, plan.idle), background_most
        )
        beside = plan.background - background_most.index_select(0, self.column_image)
        return plan.mass - most.index_select(0, self.gt), beside.index_select(0, self.column)


class Plan(NamedTuple):
    """Logarithms of the labels given.

    Args:
        mass: of each pair.
        background: that the background gives to each prior that is in a pair.
        idle: that it gives to each of the others, per image.
    """

    mass: Float64[Tensor, "N"]
    background: Float64[Tensor, "V"]
    idle: Float64[Tensor, "B"]


def _logsumexp(
    values: Float64[Tensor, "N"],
    segment: Int64[Tensor, "N"],
    count: int,
    more: Float64[Tensor, "S"] | None,
    near: Float64[Tensor, "S"] | None,
) -> Float64[Tensor, "S"]:
    """Logarithm of the sum of the exponentials of each segment's values, and of one more.

    Args:
        more: one more value, or None for none.
        near: the result, give or take some hundreds, or None if it is not known. A turn of Sinkhorn's
            algorithm changes what it scales by no more than the ratio of the largest to the smallest supply.
    """
    if near is None:
        near = segment_max(values, segment, count)
        near = near if more is None else torch.maximum(near, more)
    total = segment_sum((values - near.index_select(0, segment)).exp_(), segment, count)
    if more is not None:
        total.add_((more - near).exp_())
    return total.log_().add_(near)
