"""Two-Gaussian mixtures in one dimension, fitted to many short lists at once by expectation maximisation.

Letters: G lists, N places of a padded list, A lists still in work; 2 components.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

PLACE_BUDGET = 2**20
"""Places worked on at once, some 150 MB with temporaries. Results do not depend on it."""

# Defaults of scikit-learn's GaussianMixture: tol, reg_covar, max_iter, and what it adds to every sum of
# responsibilities so that a component without values divides nothing by 0.
TOLERANCE = 1e-3
VARIANCE_FLOOR = 1e-6
MAX_ITERATIONS = 100
COUNT_FLOOR = 10 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Mixture:
    """The fits of all lists. What stands at padding, and in the rows of empty lists, means nothing.

    Args:
        weights: share of each component.
        means: component 0 is the one that began at the minimum.
        variances: 1e-6 or more.
        component: the likelier origin of each value; 0 if both are equally likely.
        log_density: of the whole mixture at each value.
        iterations: how many steps were taken.
        converged: whether the last step changed the bound by less than the tolerance.
    """

    weights: Float64[Tensor, "G 2"]
    means: Float64[Tensor, "G 2"]
    variances: Float64[Tensor, "G 2"]
    component: Int64[Tensor, "G N"]
    log_density: Float64[Tensor, "G N"]
    iterations: Int64[Tensor, "G"]
    converged: Bool[Tensor, "G"]


def fit_mixture(values: Float[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> Mixture:
    """Fit two Gaussians to each list of values, as scikit-learn's `GaussianMixture` does to one.

    The components begin at the minimum and the maximum, with variance 1 and equal weights. A list stops when
    its mean log-density, taken before a step, differs from the last by less than 1e-3; that step is kept. The
    result is what so many steps lead to and not the optimum: the tolerance belongs to its definition. No list
    affects another.

    All is float64, but exponentials and logarithms are rounded to float32 (see `boxmatch.reproducible`):
    equal values of a list have equal densities, and lists do not depend on where in the batch they stand.

    Args:
        values: finite where `valid` holds, anything elsewhere; at least one place.
        valid: which places hold a value; a row may have none.

    Source: Kim & Lee 2020 (PAA), section 3.2; initial values and tolerance from its code.
    """
    rows = max(1, PLACE_BUDGET // values.shape[1])
    parts = [_fit(part.double(), mask) for part, mask in zip(values.split(rows), valid.split(rows))]
    return Mixture(*(torch.cat(column) for column in zip(*(vars(part).values() for part in parts))))


class _Lists(NamedTuple):
    """The lists that have not converged."""

    row: Int64[Tensor, "A"]
    values: Float64[Tensor, "A 1 N"]  # 0 for padding
    mask: Float64[Tensor, "A 1 N"]  # 1 for values, 0 for padding
    length: Float64[Tensor, "A 1 1"]


class _Gaussians(NamedTuple):
    """The two components of each list, and the squared distance of each value from their means."""

    weights: Float64[Tensor, "A 2 1"]
    means: Float64[Tensor, "A 2 1"]
    variances: Float64[Tensor, "A 2 1"]
    squares: Float64[Tensor, "A 2 N"]


def _fit(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> Mixture:
    everything, gaussians = _begin(values, valid)
    lists, last = everything, torch.full_like(values[:, 0], -torch.inf)
    parameters = torch.cat(gaussians[:3], dim=2)  # (G, 2, 3)
    iterations = torch.full_like(lists.row, MAX_ITERATIONS)
    converged = torch.zeros_like(lists.row, dtype=torch.bool)
    for iteration in range(1, MAX_ITERATIONS + 1):
        gaussians, bound = _step(lists, gaussians)
        going_on = (bound - last).abs_() >= TOLERANCE
        last, alive = bound, going_on.nonzero().squeeze(1)
        if len(alive) == len(going_on) and iteration < MAX_ITERATIONS:
            continue
        # All are written; those that go on will be overwritten.
        parameters.index_copy_(0, lists.row, torch.cat(gaussians[:3], dim=2))
        iterations.index_fill_(0, lists.row, iteration)
        converged.index_copy_(0, lists.row, ~going_on)
        if not len(alive):
            break
        lists = _Lists(*(part.index_select(0, alive) for part in lists))
        gaussians = _Gaussians(*(part.index_select(0, alive) for part in gaussians))
        last = last.index_select(0, alive)
    weights, means, variances = parameters.split(1, dim=2)
    share, log_density = _expectation(
        _Gaussians(weights, means, variances, (everything.values - means).square_())
    )
    return Mixture(
        weights=weights.squeeze(2),
        means=means.squeeze(2),
        variances=variances.squeeze(2),
        component=(share[:, 1] > share[:, 0]).long(),
        log_density=log_density.squeeze(1).sub_(math.log(2 * math.pi) / 2),
        iterations=iterations,
        converged=converged,
    )


def _begin(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> tuple[_Lists, _Gaussians]:
    lowest = values.masked_fill(~valid, torch.inf).amin(1)
    highest = values.masked_fill(~valid, -torch.inf).amax(1)
    means = torch.stack((lowest, highest), dim=1).masked_fill_(~valid.any(1, keepdim=True), 0)[..., None]
    lists = _Lists(
        row=torch.arange(len(values), device=values.device),
        values=values.masked_fill(~valid, 0)[:, None],
        mask=valid.double()[:, None],
        length=valid.sum(1).clamp_(min=1).double()[:, None, None],
    )
    one = torch.ones_like(means)
    return lists, _Gaussians(one / 2, means, one, (lists.values - means).square_())


def _step(lists: _Lists, gaussians: _Gaussians) -> tuple[_Gaussians, Float64[Tensor, "A"]]:
    """One step of expectation maximisation, and the mean log-density before it."""
    _, values, mask, length = lists
    share, log_density = _expectation(gaussians)
    share.mul_(mask)
    bound = log_density.mul_(mask).sum(2, keepdim=True).div_(length).flatten()
    # Sums along rows of one width are the same whatever other rows there are.
    size = share.sum(2, keepdim=True).add_(COUNT_FLOOR)
    means = (share * values).sum(2, keepdim=True).div_(size)
    squares = torch.sub(values, means).square_()
    variances = share.mul_(squares).sum(2, keepdim=True).div_(size).add_(VARIANCE_FLOOR)
    return _Gaussians(size.div_(length + 2 * COUNT_FLOOR), means, variances, squares), bound


def _expectation(gaussians: _Gaussians) -> tuple[Float64[Tensor, "A 2 N"], Float64[Tensor, "A 1 N"]]:
    """Share of each component in each value, and the log-density there but for its constant -ln(2 pi) / 2."""
    weights, _, variances, squares = gaussians
    height = (weights / variances.sqrt()).log_().float()
    joint = (squares * (-0.5 / variances)).add_(height)
    top = torch.maximum(*joint.split(1, dim=1))
    joint.sub_(top).exp_()  # 1 for the likelier component
    joint.copy_(joint.float())
    total = torch.add(*joint.split(1, dim=1))
    return joint.div_(total), top.add_(total.log_().float())
