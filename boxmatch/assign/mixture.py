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


class _Work(NamedTuple):
    """The lists that have not converged, after the last step."""

    row: Int64[Tensor, "A"]
    values: Float64[Tensor, "A 1 N"]  # 0 for padding
    mask: Float64[Tensor, "A 1 N"]  # 1 for values, 0 for padding
    count: Float64[Tensor, "A"]
    parameters: Float64[Tensor, "A 3 2 1"]  # weights, means, variances
    squares: Float64[Tensor, "A 2 N"]  # squared distance of each value from each mean
    bound: Float64[Tensor, "A"]

    def select(self, alive: Int64[Tensor, "R"]) -> "_Work":
        return _Work(*(part.index_select(0, alive) for part in self))


def _fit(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> Mixture:
    work = start = _begin(values, valid)
    parameters = start.parameters.clone()
    iterations = torch.full_like(start.row, MAX_ITERATIONS)
    converged = torch.zeros_like(valid[:, 0])
    for iteration in range(1, MAX_ITERATIONS + 1):
        before, work = work.bound, _step(work)
        running = (work.bound - before).abs_() >= TOLERANCE
        alive = running.nonzero().squeeze(1)
        if len(alive) == len(running):
            continue
        # All are written, those that go on will be overwritten.
        parameters.index_copy_(0, work.row, work.parameters)
        iterations.index_fill_(0, work.row, iteration)
        converged.index_copy_(0, work.row, ~running)
        if not len(alive):
            break
        work = work.select(alive)
    else:
        parameters.index_copy_(0, work.row, work.parameters)
        iterations.index_fill_(0, work.row, MAX_ITERATIONS)
    weights, means, variances = parameters.squeeze(3).unbind(1)
    share, log_density = _expectation(parameters, (start.values - means[..., None]).square_())
    return Mixture(
        weights=weights,
        means=means,
        variances=variances,
        component=(share[:, 1] > share[:, 0]).long(),
        log_density=log_density.squeeze(1).sub_(math.log(2 * math.pi) / 2),
        iterations=iterations,
        converged=converged,
    )


def _begin(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> _Work:
    lowest = values.masked_fill(~valid, torch.inf).amin(1)
    highest = values.masked_fill(~valid, -torch.inf).amax(1)
    means = torch.stack((lowest, highest), dim=1).masked_fill_(~valid.any(1, keepdim=True), 0)
    parameters = torch.stack((torch.full_like(means, 0.5), means, torch.ones_like(means)), dim=1)
    values = values.masked_fill(~valid, 0)[:, None]
    return _Work(
        row=torch.arange(len(values), device=values.device),
        values=values,
        mask=valid.double()[:, None],
        count=valid.sum(1).clamp_(min=1).double(),
        parameters=parameters[..., None],
        squares=(values - means[..., None]).square_(),
        bound=torch.full_like(lowest, -torch.inf),
    )


def _step(work: _Work) -> _Work:
    """One step of expectation maximisation; the bound is that of the parameters before it."""
    row, values, mask, count, parameters, squares, _ = work
    share, log_density = _expectation(parameters, squares)
    share.mul_(mask)
    bound = log_density.mul_(mask).sum((1, 2)).div_(count)
    # Sums along rows of one width are the same whatever other rows there are.
    size = share.sum(2, keepdim=True).add_(COUNT_FLOOR)  # (A, 2, 1)
    means = (share * values).sum(2, keepdim=True).div_(size)
    squares = torch.sub(values, means).square_()
    variances = share.mul_(squares).sum(2, keepdim=True).div_(size).add_(VARIANCE_FLOOR)
    parameters = torch.stack((size / size.sum(1, keepdim=True), means, variances), dim=1)
    return _Work(row, values, mask, count, parameters, squares, bound)


def _expectation(
    parameters: Float64[Tensor, "A 3 2 1"], squares: Float64[Tensor, "A 2 N"]
) -> tuple[Float64[Tensor, "A 2 N"], Float64[Tensor, "A 1 N"]]:
    """Share of each component in each value, and the log-density there but for its constant -ln(2 pi) / 2."""
    weights, _, variances = parameters.unbind(1)
    height = (weights / variances.sqrt()).log_().float()
    joint = (squares / (-2 * variances)).add_(height)
    top = torch.maximum(*joint.split(1, dim=1))
    joint.sub_(top).exp_()  # 1 for the likelier component
    joint.copy_(joint.float())
    total = torch.add(*joint.split(1, dim=1))
    return joint.div_(total), top.add_(total.log_().float())
