"""Two-Gaussian mixtures in one dimension, fitted to many short lists at once by expectation maximisation.

Letters: G lists, N places of a padded list, A lists still in work; 2 components.
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Work:
    """The lists that have not converged, after the last step."""

    row: Int64[Tensor, "A"]
    data: Float64[Tensor, "A 2 N"]  # 1 and the value; 0 and 0 for padding
    count: Float64[Tensor, "A"]
    parameters: Float64[Tensor, "A 3 2"]  # weights, means, variances
    squares: Float64[Tensor, "A 2 N"]  # squared distance of each value from each mean
    bound: Float64[Tensor, "A"]

    def select(self, alive: Int64[Tensor, "R"]) -> "_Work":
        return _Work(*(part.index_select(0, alive) for part in vars(self).values()))


def _fit(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> Mixture:
    work = everything = _begin(values, valid)
    parameters, iterations = everything.parameters.clone(), torch.zeros_like(everything.row)
    converged = torch.ones_like(iterations, dtype=torch.bool)
    for _ in range(MAX_ITERATIONS):
        before, work = work.bound, _step(work)
        parameters.index_copy_(0, work.row, work.parameters)
        iterations.index_add_(0, work.row, torch.ones_like(work.row))
        alive = ((work.bound - before).abs_() >= TOLERANCE).nonzero().squeeze(1)
        if not len(alive):
            break
        if len(alive) < len(work.row):
            work = work.select(alive)
    else:
        converged.index_fill_(0, work.row, False)
    weights, means, variances = parameters.unbind(1)
    share, log_density = _expectation(parameters, _squares(everything.data, means))
    return Mixture(
        weights=weights,
        means=means,
        variances=variances,
        component=(share[:, 1] > share[:, 0]).long(),
        log_density=log_density.sub_(math.log(2 * math.pi) / 2),
        iterations=iterations,
        converged=converged,
    )


def _begin(values: Float64[Tensor, "G N"], valid: Bool[Tensor, "G N"]) -> _Work:
    data = torch.stack((valid.double(), values.masked_fill(~valid, 0)), dim=1)
    lowest = values.masked_fill(~valid, torch.inf).amin(1)
    highest = values.masked_fill(~valid, -torch.inf).amax(1)
    means = torch.stack((lowest, highest), dim=1).masked_fill_(~valid.any(1, keepdim=True), 0)
    parameters = torch.stack((torch.full_like(means, 0.5), means, torch.ones_like(means)), dim=1)
    return _Work(
        row=torch.arange(len(values), device=values.device),
        data=data,
        count=data[:, 0].sum(1).clamp_(min=1),
        parameters=parameters,
        squares=_squares(data, means),
        bound=torch.full_like(lowest, -torch.inf),
    )


def _step(work: _Work) -> _Work:
    """One step of expectation maximisation; the bound is that of the parameters before it."""
    share, log_density = _expectation(work.parameters, work.squares)
    share.mul_(work.data[:, :1])
    bound = log_density.mul_(work.data[:, 0]).sum(1).div_(work.count)
    # Sums over a row of unchanging width are the same whatever rows there are.
    size, total = (share[:, None] * work.data[:, :, None]).sum(3).unbind(1)  # (A, 2) each
    size.add_(COUNT_FLOOR)
    means = total.div_(size)
    squares = _squares(work.data, means)
    variances = share.mul_(squares).sum(2).div_(size).add_(VARIANCE_FLOOR)
    parameters = torch.stack((size / size.sum(1, keepdim=True), means, variances), dim=1)
    return _Work(work.row, work.data, work.count, parameters, squares, bound)


def _expectation(
    parameters: Float64[Tensor, "A 3 2"], squares: Float64[Tensor, "A 2 N"]
) -> tuple[Float64[Tensor, "A 2 N"], Float64[Tensor, "A N"]]:
    """Share of each component in each value, and the log-density there but for its constant -ln(2 pi) / 2."""
    weights, _, variances = parameters.unbind(1)
    height = (weights / variances.sqrt()).log_().float().double()
    joint = height[..., None] - squares * (0.5 / variances)[..., None]
    top = torch.maximum(joint[:, 0], joint[:, 1])
    share = joint.sub_(top[:, None]).exp_().float().double()  # 1 for the likelier component
    total = share.sum(1)
    return share.div_(total[:, None]), total.log_().float().double().add_(top)


def _squares(data: Float64[Tensor, "A 2 N"], means: Float64[Tensor, "A 2"]) -> Float64[Tensor, "A 2 N"]:
    return (data[:, 1:] - means[..., None]).square_()
