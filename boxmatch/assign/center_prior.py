"""How near a point lies to the centre of a box, in cells of the point's own level."""

from jaxtyping import Float
from torch import Tensor

from ..boxes import box_centers
from ..priors import Priors
from ..structures import Pairs, Targets


def cells_from_center(priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "2 N"]:
    """(x, y) of each pair's point as seen from the centre of its box, in strides of the point's level."""
    points = priors.centers.T.contiguous().index_select(1, pairs.prior)
    centers = box_centers(targets.boxes).T.contiguous().index_select(1, pairs.gt)
    return points.sub_(centers).div_(priors.stride.index_select(0, pairs.prior))


def fixed_center_prior(priors: Priors, targets: Targets, pairs: Pairs, sigma: float) -> Float[Tensor, "N"]:
    """exp(-d² / (2 sigma²)) with d the distance of point and centre in cells, the same bits everywhere."""
    offset = cells_from_center(priors, targets, pairs).double()
    return offset.square_().sum(0).div_(-2 * sigma**2).exp_().float()
