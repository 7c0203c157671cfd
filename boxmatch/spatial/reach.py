"""How far apart an anchor and a box may lie and still overlap enough."""

import torch
from torch import Tensor


def needed_intersection(min_iou: float | Tensor, areas: Tensor) -> Tensor:
    """Intersection of two boxes whose IoU is `min_iou`.

    Args:
        areas: sum of the areas of both.
    """
    return min_iou / (1 + min_iou) * areas


def farthest(needed: Tensor, across: Tensor, best: Tensor, reach: Tensor, *, strict: bool = False) -> Tensor:
    """How far apart the centres may be along one axis.

    Args:
        needed: intersection that must be reached.
        across: overlap along the other axis.
        best: greatest overlap along this axis.
        reach: distance from which on nothing is shared along this axis.
        strict: the intersection must be more than `needed`, and so the distance less than the result.

    Returns:
        The distance; -1 where the intersection is out of reach.
    """
    overlap = needed / across.clamp(min=torch.finfo(across.dtype).tiny)
    possible = overlap < best if strict else overlap <= best
    return torch.where(possible & (across > 0), reach - overlap, -1.0)
