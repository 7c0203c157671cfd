"""Candidates of the cell methods: the cells near a box's centre, scored by shape alone."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..boxes import box_sizes
from ..priors import Priors
from ..structures import Pairs, Targets
from .grid import union_eps


def shape_candidates(
    priors: Priors, targets: Targets, reach: int, threshold: float
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Pairs of a box and the anchors of the cells near its centre whose shape IoU is at least `threshold`.

    The shape IoU (both boxes moved to one centre) does not depend on the cell, so it is computed once per box and
    anchor shape, never per pair.

    Args:
        reach: 0 for the cell of the centre, 1 for the block of 3 × 3 cells around it.

    Returns:
        The pairs, ordered by box, and the shape IoU of each.

    Raises:
        ValueError: the priors lie on no grid.
    """
    first, shape = anchor_shapes(priors)
    wh = priors.wh[first]  # (S, 2)
    gt_wh = box_sizes(targets.boxes)
    inter = torch.minimum(gt_wh[:, None], wh).prod(2)  # (G, S)
    union = gt_wh.prod(1)[:, None] + wh.prod(1) - inter
    iou = inter / (union + union_eps(priors)[priors.level[first]])
    pairs = priors.cells(targets, reach)
    shape_iou = iou[pairs.gt, shape[pairs.prior]]
    keep = shape_iou >= threshold
    return pairs.select(keep), shape_iou[keep]


def anchor_shapes(priors: Priors) -> tuple[Int64[Tensor, "S"], Int64[Tensor, "P"]]:
    """The first prior of each anchor shape, level by level, and the shape of every prior."""
    if not priors.levels:
        raise ValueError("expected priors on a grid, got free boxes, which have no cells; use AnchorGrid")
    device = priors.boxes.device
    first, shape, priors_before, shapes_before = [], [], 0, 0
    for level in priors.levels:
        anchors = torch.arange(level.anchors, device=device)
        first.append(priors_before + anchors)
        shape.append(shapes_before + anchors.repeat(level.height * level.width))
        priors_before += len(level)
        shapes_before += level.anchors
    return torch.cat(first), torch.cat(shape)
