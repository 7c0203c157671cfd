"""How near a point lies to the centre of a box, in cells of the point's own level."""

from jaxtyping import Float, Float64
from torch import Tensor

from ..boxes import box_centers
from ..priors import Priors
from ..structures import Pairs, Targets


def cells_from_center(priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "2 N"]:
    """(x, y) of each pair's point as seen from the centre of its box, in strides of the point's level."""
    points = priors.centers.T.contiguous().index_select(1, pairs.prior)
    centers = box_centers(targets.boxes).T.contiguous().index_select(1, pairs.gt)
    return points.sub_(centers).div_(priors.stride.index_select(0, pairs.prior))


def squared_cells_from_center(priors: Priors, targets: Targets, pairs: Pairs) -> Float64[Tensor, "N"]:
    """Squared distance of point and centre of each pair, in strides of the point's level."""
    return cells_from_center(priors, targets, pairs).double().square_().sum(0)


def fixed_center_prior(squared_cells: Float64[Tensor, "N"], sigma: float) -> Float[Tensor, "N"]:
    """exp(-d² / (2 sigma²)) with d the distance of point and centre in cells, the same bits everywhere."""
    return squared_cells.div(-2 * sigma**2).exp_().float()
