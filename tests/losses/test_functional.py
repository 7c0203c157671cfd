"""Focal losses: known values, finite everywhere, gradients as differences say."""

import math

import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from boxmatch.losses import bce, focal_loss, quality_focal, sigmoid_focal, varifocal
from boxmatch.losses.functional import check_gamma

# Elements of the golden units and their focal loss with gamma 3.5.
LITERAL_LOGITS = [-2.618167, 1.212461, -4.637079, 2.967279]
LITERAL_LABELS = [0.3068548, 1.0, 0.0, 0.2218737]
LITERAL_FOCAL = [0.1319171, 0.001502622, 8.334441e-10, 1.666636]


def test_bce_of_an_undecided_logit_is_log_two() -> None:
    assert_close(bce(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])), torch.full((3,), math.log(2)))


def test_focal_loss_without_exponent_is_bce() -> None:
    logits, targets = torch.randn(7), torch.rand(7)
    assert torch.equal(focal_loss(logits, targets, 0.0), bce(logits, targets))


def test_focal_loss_equals_the_paper_for_hard_targets() -> None:
    logits, targets = torch.tensor([1.5, -0.7, 0.2, 3.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    p = torch.where(targets > 0, logits.sigmoid(), 1 - logits.sigmoid())
    assert_close(focal_loss(logits, targets, 2.0), -((1 - p) ** 2) * p.log())


def test_focal_loss_keeps_literal_values_of_the_reference() -> None:
    logits = torch.tensor(LITERAL_LOGITS)
    found = focal_loss(logits, torch.tensor(LITERAL_LABELS), 3.5)
    assert_close(found, torch.tensor(LITERAL_FOCAL), rtol=1e-4, atol=1e-7)


def test_sigmoid_focal_of_undecided_logits_by_hand() -> None:
    found = sigmoid_focal(torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert_close(found, torch.tensor([0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)]))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.4, 1.5), (0.5, 0.0)])
def test_sigmoid_focal_equals_torchvision(alpha: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn((50, 3), generator=generator)
    targets = (torch.rand((50, 3), generator=generator) > 0.5).float()
    expected = sigmoid_focal_loss(logits.double(), targets.double(), alpha, gamma)
    assert_close(sigmoid_focal(logits, targets, alpha, gamma), expected.float(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_sigmoid_focal_and_its_gradient_are_finite_at_saturated_logits(target: float) -> None:
    logits = torch.tensor([-1e30, -1e4, -100.0, 100.0, 1e4, 1e30], requires_grad=True)
    loss = sigmoid_focal(logits, torch.full((6,), target))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()
    # The wrong side grows as the logit does, the right side vanishes.
    assert loss.max() > 1e29
    assert loss.min() == 0


def test_quality_focal_vanishes_at_its_target_and_at_hard_targets_is_the_focal_loss() -> None:
    targets = torch.tensor([0.2, 0.7])
    assert_close(quality_focal(torch.logit(targets), targets), torch.zeros(2), atol=1e-12, rtol=0)
    logits, hard = torch.tensor([1.5, -0.7]), torch.tensor([1.0, 0.0])
    assert_close(quality_focal(logits, hard), focal_loss(logits, hard, 2.0))


def test_varifocal_weighs_positives_by_target_and_negatives_by_probability() -> None:
    logits, targets = torch.tensor([0.4, 0.4]), torch.tensor([0.6, 0.0])
    expected = torch.stack(
        [0.6 * bce(logits, targets)[0], 0.75 * logits[1].sigmoid() ** 2 * bce(logits, targets)[1]]
    )
    assert_close(varifocal(logits, targets), expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 3.5])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_values_and_slopes_are_finite_at_every_logit(gamma: float, target: float) -> None:
    logits = torch.tensor([-1e30, -200.0, -20.0, 0.0, 20.0, 200.0, 1e30], requires_grad=True)
    targets = torch.full_like(logits, target).detach()
    for loss in (
        focal_loss(logits, targets, gamma),
        quality_focal(logits, targets),
        varifocal(logits, targets),
    ):
        (slope,) = torch.autograd.grad(loss.sum(), logits)
        assert torch.isfinite(loss).all() and torch.isfinite(slope).all()
        assert (loss >= 0).all()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0, 3.5])
def test_gradients_agree_with_differences(gamma: float) -> None:
    logits = torch.tensor([-2.1, -0.3, 0.4, 1.7], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0.0, 0.3, 1.0, 0.8], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, gamma), logits)
    assert torch.autograd.gradcheck(lambda x: quality_focal(x, targets), logits)
    assert torch.autograd.gradcheck(lambda x: varifocal(x, targets), logits)
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, targets.round(), 0.3, gamma), logits)


@pytest.mark.parametrize("gamma", [-1.0, 0.5, 0.999, math.nan])
def test_an_exponent_with_an_infinite_slope_is_refused_by_name(gamma: float) -> None:
    with pytest.raises(ValueError, match="class_gamma"):
        check_gamma(gamma, "class_gamma")


@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.5])
def test_an_exponent_of_zero_or_at_least_one_passes(gamma: float) -> None:
    check_gamma(gamma)
