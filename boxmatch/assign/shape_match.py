"""Candidates of the cell methods: the cells near a box's centre, scored by shape alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import box_sizes
from ..priors import Priors
from ..structures import Pairs, Targets
from .grid import grid_index, union_eps
from .story import Story


def shape_candidates(
    priors: Priors, targets: Targets, reach: int, threshold: float, story: Story
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Pairs of a box and the anchors of the cells near its centre whose shape IoU is at least `threshold`.

    The shape IoU (both boxes moved to one centre) does not depend on the cell: it is computed once per box
    and anchor shape, never per pair.

    Args:
        reach: 0 for the cell of the centre, 1 for the block of 3 × 3 cells around it.
        story: is told what lies below the threshold.

    Returns:
        The pairs, ordered by box, then prior, and the shape IoU of each.

    Raises:
        ValueError: the priors lie on no grid.
    """
    anchor_w, anchor_h = grid_index(priors).wh.unbind(2)  # (L, A)
    box_w, box_h = box_sizes(targets.boxes)[:, :, None, None].unbind(1)  # (G, 1, 1)
    inter = torch.minimum(box_w, anchor_w) * torch.minimum(box_h, anchor_h)
    union = box_w * box_h + anchor_w * anchor_h - inter
    iou = (inter / (union + union_eps(priors)[:, None])).flatten(1)  # (G, L A)
    cell = priors.cell(torch.arange(len(priors), device=priors.boxes.device))
    shape = cell.level * anchor_w.shape[1] + cell.anchor  # (P,)
    pairs = priors.cells(targets, reach)
    # index_select, not [...]: it takes a quarter of the time on a CPU.
    place = pairs.gt * iou.shape[1] + shape.index_select(0, pairs.prior)
    shape_iou = iou.flatten().index_select(0, place)
    enough = shape_iou >= threshold
    story.candidates(pairs, shape_iou, torch.full_like(shape_iou, threshold))
    story.keep(enough, otherwise="below_threshold")
    keep = enough.nonzero().squeeze(1)
    kept = Pairs(pairs.gt.index_select(0, keep), pairs.prior.index_select(0, keep))
    return kept, shape_iou.index_select(0, keep)
