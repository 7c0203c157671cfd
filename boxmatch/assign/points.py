"""Where the centre of a prior lies with respect to a box, for lists of pairs."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..boxes import box_centers, box_sizes, take_boxes
from ..priors import Priors
from ..segments import ragged_arange
from ..structures import Pairs, Targets


def every_prior(priors: Priors, targets: Targets) -> Pairs:
    """Each box with each prior."""
    return Pairs(*ragged_arange(torch.full_like(targets.labels, len(priors))))


def side_distances(priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "N 4"]:
    """How far each prior's centre lies inside the left, top, right and bottom side, px; negative outside."""
    x, y = priors.centers.index_select(0, pairs.prior).unbind(1)
    x1, y1, x2, y2 = take_boxes(targets.boxes, pairs.gt).unbind(1)
    return torch.stack((x - x1, y - y1, x2 - x, y2 - y)).T


def near_center(priors: Priors, targets: Targets, pairs: Pairs, radius: float) -> Bool[Tensor, "N"]:
    """Whether `Priors.within` lists the pair for this radius, in strides."""
    center = box_centers(targets.boxes).index_select(0, pairs.gt)
    point = priors.centers.index_select(0, pairs.prior)
    half = (radius * priors.stride).index_select(0, pairs.prior)[:, None]
    # Compared as the query does: a difference rounds otherwise than a sum.
    return ((point > center - half) & (point < center + half)).all(1)


def most_within(priors: Priors, radius: float) -> int:
    """No less than the number of pairs that `Priors.within` lists for any box; for `piecewise`."""
    # A square of side 2r has at most that many strides, and one more, in a row.
    cells = (int(2 * radius) + 1) ** 2
    return sum(min(len(level), cells * level.anchors) for level in priors.levels) or len(priors)


def enlarged(targets: Targets, below: float, size: float) -> Targets:
    """The targets, every side shorter than `below` px made `size` px long around the same centre."""
    if not below:
        return targets
    short = (box_sizes(targets.boxes) < below).repeat(1, 2)
    center = box_centers(targets.boxes)
    square = torch.cat((center - size / 2, center + size / 2), dim=1)
    return replace(targets, boxes=torch.where(short, square, targets.boxes))
