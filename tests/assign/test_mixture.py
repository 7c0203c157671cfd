"""Mixtures of two Gaussians: against scikit-learn, and where lists are short, equal or far spread."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.testing import assert_close

from boxmatch.assign import mixture as module
from boxmatch.assign.boundary import split_by_mixture
from boxmatch.assign.mixture import fit_mixture

WIDTH = 45
FITS = 1000


def like_paa(fits: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ascending costs of 2 to 45 candidates, some of which fit their box and some of which do not."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand((5, fits, 1), generator=generator)
    center = torch.where(
        torch.rand((fits, WIDTH), generator=generator) < uniform[0],
        0.2 + 0.5 * uniform[1],
        0.5 + 0.7 * uniform[2],
    )
    spread = 0.05 + 0.2 * uniform[3]
    cost = (center + spread * torch.randn((fits, WIDTH), generator=generator)).clamp(min=0.02)
    valid = torch.arange(WIDTH) < 2 + (uniform[4] * (WIDTH - 1)).long()
    return cost.masked_fill(~valid, torch.inf).sort(1).values, valid


def lists(*rows: list[float], width: int = 6) -> tuple[Tensor, Tensor]:
    """Rows of values, filled up with nan: what stands there must not matter."""
    values = torch.full((len(rows), width), torch.nan)
    for place, row in enumerate(rows):
        values[place, : len(row)] = torch.tensor(row)
    return values, ~values.isnan()


def by_scikit_learn(values: np.ndarray) -> GaussianMixture:
    """The fit of ascending float64 values as the original sets it up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(
            2,
            weights_init=np.array([0.5, 0.5]),
            means_init=np.array([[values.min()], [values.max()]]),
            precisions_init=np.array([[[1.0]], [[1.0]]]),
        ).fit(values[:, None])


def positives_of(mixture: GaussianMixture, values: np.ndarray) -> int:
    """How many of the ascending values are positive by boundary c."""
    foreground = mixture.predict(values[:, None]) == 0
    if not foreground.any():
        return len(values)
    return int(np.where(foreground, mixture.score_samples(values[:, None]), -np.inf).argmax()) + 1


def test_a_thousand_fits_equal_those_of_scikit_learn():
    # Given float32, scikit-learn also computes in it, and then disagrees with itself on 0.5 % of these lists.
    values, valid = like_paa(FITS, seed=0)
    found = fit_mixture(values, valid)
    gt = torch.arange(FITS).repeat_interleave(valid.sum(1))
    split = split_by_mixture(values[valid], gt, FITS, WIDTH, "c")
    positives = torch.bincount(gt[split.positive], minlength=FITS)
    same_positives, same_iterations, farthest = 0, 0, 0.0
    for row in range(FITS):
        one = values[row, valid[row]].double().numpy()
        expected = by_scikit_learn(one)
        same_positives += positives_of(expected, one) == int(positives[row])
        same_iterations += expected.n_iter_ == int(found.iterations[row])
        farthest = max(farthest, np.abs(expected.means_[:, 0] - found.means[row].numpy()).max())
        assert expected.converged_ == bool(found.converged[row])
    assert same_positives >= 0.998 * FITS
    assert same_iterations >= 0.998 * FITS
    assert farthest < 1e-6
    # Of every kind: some stop at once and some go on for long.
    assert int(found.iterations.min()) <= 3 and int(found.iterations.max()) > 15


def test_weights_variances_and_densities_equal_those_of_scikit_learn():
    values, valid = like_paa(20, seed=1)
    found = fit_mixture(values, valid)
    for row in range(20):
        one = values[row, valid[row]].double().numpy()
        expected = by_scikit_learn(one)
        for name, array in (("weights", expected.weights_), ("variances", expected.covariances_[:, 0, 0])):
            assert_close(getattr(found, name)[row], torch.from_numpy(array), rtol=1e-5, atol=1e-7)
        density = torch.from_numpy(expected.score_samples(one[:, None]))
        assert_close(found.log_density[row, valid[row]], density, rtol=1e-5, atol=1e-6)
        component = torch.from_numpy(expected.predict(one[:, None]))
        assert torch.equal(found.component[row, valid[row]], component)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_list_does_not_depend_on_the_others(threads, monkeypatch):
    # Enough lists for three threads to share them.
    count = 1500
    values, valid = like_paa(count, seed=2)
    together = fit_mixture(values, valid)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "PLACE_BUDGET", 211 * WIDTH)
    torch.set_num_threads(threads)
    try:
        in_parts = fit_mixture(values, valid)
        alone = [fit_mixture(values[row : row + 1], valid[row : row + 1]) for row in range(0, count, 100)]
        monkeypatch.undo()
        shuffled = fit_mixture(values[order], valid[order])
    finally:
        torch.set_num_threads(1)
    for name, whole in vars(together).items():
        assert torch.equal(getattr(in_parts, name), whole)
        assert torch.equal(getattr(shuffled, name), whole[order])
        assert torch.equal(torch.cat([getattr(one, name) for one in alone]), whole[::100])


def test_two_separate_groups_by_hand():
    found = fit_mixture(*lists([0.0, 1.0, 100.0, 101.0, 102.0]))
    assert_close(found.means, torch.tensor([[0.5, 101.0]], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert_close(found.weights, torch.tensor([[0.4, 0.6]], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    expected = torch.tensor([[0.25, 2 / 3]], dtype=torch.float64) + 1e-6
    assert_close(found.variances, expected, rtol=1e-6, atol=1e-6)
    assert found.component[0, :5].tolist() == [0, 0, 1, 1, 1]


def test_one_value_is_of_the_first_component():
    found = fit_mixture(*lists([0.7]))
    assert_close(found.means, torch.full((1, 2), 0.7, dtype=torch.float64), rtol=1e-6, atol=0)
    assert_close(found.variances, torch.full((1, 2), 1e-6, dtype=torch.float64), rtol=1e-3, atol=0)
    assert found.component[0, 0] == 0 and bool(found.converged[0])


@pytest.mark.parametrize("row", [[0.3, 0.9], [0.5, 0.5], [0.25] * 6, [1.0, 1.0, 1.0, 2.0], [1e8, 1e8, 0.5]])
def test_short_and_equal_lists_equal_those_of_scikit_learn(row):
    found = fit_mixture(*lists(row))
    expected = by_scikit_learn(np.array(row, dtype=np.float32).astype(np.float64))
    assert int(found.iterations[0]) == expected.n_iter_
    assert_close(found.means[0], torch.from_numpy(expected.means_[:, 0]), rtol=1e-5, atol=1e-6)
    assert_close(found.weights[0], torch.from_numpy(expected.weights_), rtol=1e-5, atol=1e-6)


def test_equal_values_have_equal_densities_and_components_whatever_the_list():
    generator = torch.Generator().manual_seed(3)
    values = torch.rand((200, WIDTH), generator=generator).mul_(4).round_().div_(4)
    valid = torch.ones_like(values, dtype=torch.bool)
    found = fit_mixture(values, valid)
    for row in range(200):
        for value in values[row].unique():
            here = values[row] == value
            assert len(found.log_density[row, here].unique()) == 1
            assert len(found.component[row, here].unique()) == 1


def test_a_list_of_equal_values_is_all_of_the_first_component():
    values = torch.tensor([[0.1], [0.7], [123.456], [1e8]]).expand(4, WIDTH)
    valid = torch.arange(WIDTH) < torch.tensor([[45], [2], [31], [7]])
    found = fit_mixture(values, valid)
    assert not found.component[valid].any()
    assert torch.isfinite(found.log_density[valid]).all()


@pytest.mark.parametrize("spread", [1e-30, 1e-3, 1e3, 1e6, 1e8])
def test_every_spread_ends_finite(spread):
    generator = torch.Generator().manual_seed(4)
    values = spread * torch.rand((50, WIDTH), generator=generator)
    found = fit_mixture(values, torch.ones_like(values, dtype=torch.bool))
    for name in ("weights", "means", "variances", "log_density"):
        assert torch.isfinite(getattr(found, name)).all()
    assert (found.variances > 0).all() and (found.iterations >= 2).all() and (found.iterations <= 100).all()


def test_a_list_that_does_not_converge_stops_after_a_hundred_steps(monkeypatch):
    monkeypatch.setattr(module, "MAX_ITERATIONS", 3)
    values, valid = lists([0.1, 0.12, 0.5, 0.9, 1.0, 2.0], [0.5, 0.5])
    found = fit_mixture(values, valid)
    assert found.iterations.tolist() == [3, 3] or found.iterations.tolist() == [3, 2]
    assert found.converged.tolist() == [False, True]


def test_no_lists_and_empty_lists_are_fine():
    assert fit_mixture(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool)).means.shape == (0, 2)
    values, valid = lists([], [0.2, 0.4])
    assert_close(fit_mixture(values, valid).means[1], fit_mixture(values[1:], valid[1:]).means[0])
