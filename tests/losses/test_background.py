"""The background term by itself: values, gradients, pieces, priors that take no part."""

from itertools import product

import pytest
import torch

from boxmatch.losses import background
from boxmatch.losses.background import BackgroundFocal, Exceptions, background_sum

IMAGES, PRIORS, CLASSES = 3, 4, 5


def inputs(quality: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """float64 leaves: class logits, objectness logits."""
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn((IMAGES, PRIORS, CLASSES), generator=random).double()
    objectness = torch.randn((IMAGES, PRIORS), generator=random).double()
    return logits.requires_grad_(), objectness.requires_grad_() if quality else None


def exceptions(inside: bool, ignored: bool = True) -> Exceptions:
    """A pair in the first image, and three in the last, two of them of one prior and class."""
    entry = torch.tensor([7, 41, 58, 58])
    taken = torch.zeros(IMAGES, PRIORS, dtype=torch.bool)
    taken[1, 2] = taken[2, 0] = ignored
    spared = torch.tensor([1.0, 0.25, 0.6, 0.6]).double()
    return Exceptions(entry, torch.tensor([0, 2, 2, 2]), spared, taken, inside)


def dense(logits, quality, weights: Exceptions, gamma: float) -> torch.Tensor:
    """From the formula."""
    score = logits.sigmoid() if quality is None else logits.sigmoid() * quality.sigmoid()[..., None]
    kept = torch.ones_like(score).flatten()
    kept[weights.entry] = 1 - weights.spared
    kept = kept.view_as(score) * ~weights.ignored[..., None]
    if weights.inside:
        score, kept = score * kept, 1
    return (kept * score**gamma * -(1 - score).log()).sum()


CASES = list(product([True, False], [True, False], [0.0, 1.0, 2.0, 2.5]))


@pytest.mark.parametrize(("quality", "inside", "gamma"), CASES)
def test_it_equals_the_formula(quality, inside, gamma):
    logits, objectness = inputs(quality)
    weights = exceptions(inside)
    value = BackgroundFocal.apply(logits, objectness, weights, gamma, True)
    expected = dense(logits, objectness, weights, gamma)
    torch.testing.assert_close(value, expected)
    leaves = [part for part in (logits, objectness) if part is not None]
    for slope, wanted in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves)):
        torch.testing.assert_close(slope, wanted)


@pytest.mark.parametrize("inside", [True, False])
def test_its_gradient_is_that_of_differences(inside):
    weights = exceptions(inside)
    leaves = inputs(quality=True)
    assert torch.autograd.gradcheck(lambda a, b: BackgroundFocal.apply(a, b, weights, 2.0, True), leaves)


@pytest.mark.parametrize("inside", [True, False])
def test_pieces_change_nothing_and_every_entry_is_spared_once(inside, monkeypatch):
    logits, objectness = (part.detach() for part in inputs(quality=True))
    whole = background_sum(logits, objectness, exceptions(inside), 2.0, True)
    assert float(whole.spared) == pytest.approx(1 + 0.25 + 0.6)
    monkeypatch.setattr(background, "_TABLE_BUDGET", {"cpu": 1})
    monkeypatch.setattr(background, "_BLOCK_BUDGET", {"cpu": 10})
    for expected, found in zip(whole, background_sum(logits, objectness, exceptions(inside), 2.0, True)):
        torch.testing.assert_close(found, expected)


def test_ignored_priors_have_neither_value_nor_gradient():
    logits, objectness = inputs(quality=True)
    weights = exceptions(inside=False)
    value = BackgroundFocal.apply(logits, objectness, weights, 2.0, True)
    slopes = torch.autograd.grad(value, [logits, objectness])
    assert not slopes[0][weights.ignored].any() and not slopes[1][weights.ignored].any()
    without = background_sum(
        logits.detach(), objectness.detach(), exceptions(False, ignored=False), 2.0, False
    )
    assert float(value.detach()) < float(without.value)


def test_without_a_gradient_none_is_computed():
    logits, objectness = (part.detach() for part in inputs(quality=True))
    result = background_sum(logits, objectness, exceptions(False), 2.0, False)
    assert result.grad_logits is None and result.grad_quality is None


@pytest.mark.parametrize("quality", [True, False])
def test_certain_false_positives_are_finite_and_pulled_down(quality):
    logits = torch.full((1, 2, 3), 500.0, requires_grad=True)
    objectness = torch.full((1, 2), 500.0, requires_grad=True) if quality else None
    nothing = torch.zeros(0, dtype=torch.int64)
    weights = Exceptions(nothing, nothing, torch.zeros(0), torch.zeros(1, 2, dtype=torch.bool), inside=False)
    value = BackgroundFocal.apply(logits, objectness, weights, 2.0, True)
    (slope,) = torch.autograd.grad(value, logits)
    # -ln(1 - s) = 60, less ln 2 where two logits share the rest; slopes sum to 1.
    assert float(value.detach()) == pytest.approx(6 * (60 - (0.6931 if quality else 0)), rel=1e-5)
    assert slope.flatten().tolist() == pytest.approx([0.5 if quality else 1.0] * 6, rel=1e-4)
