"""How strongly a prior inside a box learns it: its place in the bag, and its share of the box."""

from typing import Literal

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..priors import Priors
from ..segments import segment_sum, segment_topk
from ..structures import Pairs, Targets
from .center_prior import fixed_center_prior, squared_cells_from_center

Bag = Literal["soft_center", "hard_center", "topk"]
TopkWeight = Literal["prior", "one"]

HARD_PRIOR = 0.3
"""Least centre prior of the hard bag: a radius of 1.72 cells. Source: strongwolf/DW (`soft_prior=False`)."""

_EPS = 1e-12  # of the official code: least sum of a bag


def bag_membership(
    priors: Priors,
    targets: Targets,
    pairs: Pairs,
    bag: Bag,
    *,
    sigma: float,
    topk: int,
    topk_weight: TopkWeight,
) -> Float[Tensor, "N"]:
    """How far each pair belongs to the bag of its box, in [0, 1]; the arguments are those of `DualWeight`.

    Args:
        pairs: all priors inside the boxes, ordered by ground truth. Equally central ones enter the bag "topk"
            by the lowest prior.
    """
    squared = squared_cells_from_center(priors, targets, pairs)
    prior = fixed_center_prior(squared, sigma)
    if bag == "soft_center":
        return prior
    if bag == "hard_center":
        return (prior > HARD_PRIOR).float()
    # By the distance: far from the centre of a large box the Gaussian is 0 in float32.
    kept = segment_topk(-squared, pairs.gt, len(targets), topk)
    return kept.float() if topk_weight == "one" else prior.masked_fill_(~kept, 0)


def share_of_box(
    joint: Float64[Tensor, "N"],
    member: Float[Tensor, "N"],
    segment: Int64[Tensor, "N"],
    count: int,
    *,
    mu_num: float,
    mu_den: float,
) -> Float[Tensor, "N"]:
    """exp(mu_num t) t q / Σ exp(mu_den t) t q, the sum over the pairs of the box.

    Args:
        joint: t, the joint score; overwritten.
        member: q.
        segment: ground truth of each pair.
        count: number of ground truths.
    """
    gain = joint * member
    total = segment_sum((joint * mu_den).exp_().mul_(gain), segment, count).clamp_(min=_EPS)
    return joint.mul_(mu_num).exp_().mul_(gain).div_(total.index_select(0, segment)).float()
