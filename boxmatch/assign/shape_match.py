"""Candidates of the cell methods: the cells near a box's centre, scored by shape alone."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..priors import Priors
from ..structures import Pairs, Targets
from .grid import union_eps


def shape_candidates(
    priors: Priors, targets: Targets, reach: int, threshold: float
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Pairs of a box and the anchors of the cells near its centre whose shape IoU is at least `threshold`.

    The shape IoU (both boxes moved to one centre) does not depend on the cell, so it is computed once per box and
    anchor shape.

    Args:
        reach: 0 for the cell of the centre, 1 for the block of 3 × 3 cells around it.

    Returns:
        The pairs, ordered by box, and the shape IoU of each.
    """
    shape = shape_of_prior(priors)                                                           # (P,)
    wh = priors.boxes[first_priors(priors)]
    wh = wh[:, 2:] - wh[:, :2]                                                               # (S, 2)
    gt_wh = targets.boxes[:, 2:] - targets.boxes[:, :2]
    inter = torch.minimum(gt_wh[:, None], wh).prod(2)                                        # (G, S)
    union = gt_wh.prod(1)[:, None] + wh.prod(1) - inter
    eps = union_eps(priors)
    return None
