"""The loss of AutoAssign: normalisers, batches without objects, what may not break it.

Its values and gradients are compared with slow loops together with the assigner's, in tests/assign.
"""

from dataclasses import replace

import pytest
import torch
from soft_scene import CLASSES, crowded_targets, half_trained, leaves, points, single
from torch.utils.checkpoint import checkpoint

from boxmatch.assign import AutoAssign
from boxmatch.losses import AutoAssignLoss, auto_assign, soft_pairs
from boxmatch.structures import Assignment, Predictions, Targets

POINTS = points(center=0.0)
NAMES = ("positive", "negative", "center")


def assigned(targets: Targets, predictions: Predictions) -> tuple[AutoAssign, Assignment]:
    """The assigner, whose parameters learn, and its answer with a graph."""
    assigner = AutoAssign(CLASSES)
    return assigner, assigner(POINTS, targets, predictions)


def values(terms: dict[str, torch.Tensor]) -> list[float]:
    """The three numbers."""
    return [float(terms[name].detach()) for name in NAMES]


def test_weights_multiply_their_terms():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)[1]
    plain = values(AutoAssignLoss()(POINTS, targets, predictions, assignment))
    loss = AutoAssignLoss(pos_weight=0.5, neg_weight=0.25, center_weight=3.0)
    scaled = values(loss(POINTS, targets, predictions, assignment))
    assert scaled == pytest.approx([2 * plain[0], plain[1] / 3, 4 * plain[2]])
    changed = values(AutoAssignLoss(neg_gamma=1.0)(POINTS, targets, predictions, assignment))
    assert changed[0] == plain[0] and changed[1] > plain[1]


def test_without_objectness_the_class_alone_is_the_score():
    targets = crowded_targets()
    plain = half_trained(POINTS, targets, quality=False)
    sure = replace(plain, quality=torch.full(plain.logits.shape[:2], 50.0).double())
    expected, found = (
        values(AutoAssignLoss()(POINTS, targets, part, assigned(targets, part)[1])) for part in (sure, plain)
    )
    assert found == pytest.approx(expected)


def test_a_batch_without_objects_keeps_every_output_and_the_prior_in_the_graph():
    targets = Targets.from_lists([[], []], [[], []])
    predictions = half_trained(POINTS, targets)
    assigner, assignment = assigned(targets, predictions)
    terms = AutoAssignLoss()(POINTS, targets, predictions, assignment)
    found = values(terms)
    assert found[0] == found[2] == 0 and found[1] > 0
    slopes = torch.autograd.grad(sum(terms.values()), [*leaves(predictions), assigner.mean, assigner.sigma])
    assert slopes[0].all() and slopes[2].all()
    assert not any(slope.any() for slope in (slopes[1], slopes[3], slopes[4]))


def test_an_empty_batch_is_zero():
    targets = Targets.from_lists([], [])
    predictions = half_trained(POINTS, targets)
    terms = AutoAssignLoss()(POINTS, targets, predictions, assigned(targets, predictions)[1])
    assert values(terms) == [0, 0, 0]


def test_normalisers_are_means_over_ranks_in_training_alone(monkeypatch):
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)[1]
    plain = values(AutoAssignLoss()(POINTS, targets, predictions, assignment))
    mass = float(assignment.score.detach().sum())
    assert mass > 1
    monkeypatch.setattr(auto_assign, "rank_count", lambda: 2)
    other = torch.tensor([2.0, 3.0])
    monkeypatch.setattr(auto_assign, "mean_over_ranks", lambda counts: (counts + other) / 2)
    shared = values(AutoAssignLoss()(POINTS, targets, predictions, assignment))
    assert shared == pytest.approx([plain[0] * 6 / 4, plain[1] * mass / ((mass + 3) / 2), plain[2]])
    assert values(AutoAssignLoss().eval()(POINTS, targets, predictions, assignment)) == plain


def test_computing_again_instead_of_keeping_a_graph_changes_nothing(monkeypatch):
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)

    def slopes() -> list[torch.Tensor]:
        assigner, assignment = assigned(targets, predictions)
        terms = AutoAssignLoss()(POINTS, targets, predictions, assignment)
        parameters = [*leaves(predictions), assigner.mean, assigner.sigma]
        return list(torch.autograd.grad(sum(terms.values()), parameters))

    kept = slopes()
    computed = []
    monkeypatch.setattr(soft_pairs, "GRAPH_BUDGET", 0)
    monkeypatch.setattr(soft_pairs, "_PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(
        soft_pairs, "checkpoint", lambda *call, **how: computed.append(call) or checkpoint(*call, **how)
    )
    for expected, found in zip(kept, slopes(), strict=True):
        torch.testing.assert_close(found, expected)
    assert len(computed) > 2


def test_ignore_regions_are_no_boxes_and_their_priors_no_background():
    # The region lies between the points of the coarse grid, and holds four of the fine one.
    plain, mixed = crowded_targets(), crowded_targets(ignore=True)
    predictions = half_trained(POINTS, plain)
    expected = AutoAssignLoss()(POINTS, plain, predictions, assigned(plain, predictions)[1])
    assignment = assigned(mixed, predictions)[1]
    terms = AutoAssignLoss()(POINTS, mixed, predictions, assignment)
    assert assignment.ignored.any()
    assert values(terms)[0] == pytest.approx(values(expected)[0])
    assert values(terms)[1] < values(expected)[1]
    assert values(terms)[2] == pytest.approx(values(expected)[2])
    slope = torch.autograd.grad(terms["negative"], predictions.logits)[0]
    assert not slope[assignment.ignored].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_under_autocast_give_the_loss_within_one_percent(dtype):
    targets = crowded_targets()
    full = single(half_trained(POINTS, targets))
    half = replace(full, logits=full.logits.to(dtype), quality=full.quality.to(dtype))
    expected = AutoAssignLoss()(POINTS, targets, full, assigned(targets, full)[1])
    with torch.autocast("cpu", dtype=dtype):
        terms = AutoAssignLoss()(POINTS, targets, half, assigned(targets, half)[1])
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert values(terms) == pytest.approx(values(expected), rel=0.01)


@pytest.mark.parametrize("logit", [-1e4, -200.0, 200.0, 1e4])
def test_saturated_logits_give_finite_values_and_gradients(logit):
    targets = crowded_targets()
    sane = single(half_trained(POINTS, targets))
    predictions = replace(
        sane,
        logits=torch.full_like(sane.logits, logit).requires_grad_(),
        quality=torch.full_like(sane.quality, logit).requires_grad_(),
    )
    assigner, assignment = assigned(targets, predictions)
    terms = AutoAssignLoss()(POINTS, targets, predictions, assignment)
    slopes = torch.autograd.grad(sum(terms.values()), [*leaves(predictions), assigner.mean, assigner.sigma])
    assert all(bool(term.isfinite()) for term in terms.values())
    assert all(bool(slope.isfinite().all()) for slope in slopes)


@pytest.mark.parametrize("name", ["pos_weight", "neg_weight", "center_weight", "beta"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_arguments_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match="expected"):
        AutoAssignLoss(**{name: value})


def test_other_wrong_inputs_are_refused():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    assignment = assigned(targets, predictions)[1]
    with pytest.raises(ValueError, match="neg_gamma"):
        AutoAssignLoss(neg_gamma=0.5)
    with pytest.raises(ValueError, match="decoded boxes"):
        AutoAssignLoss()(POINTS, targets, replace(predictions, boxes=None), assignment)
    with pytest.raises(ValueError, match="labels below 2"):
        AutoAssignLoss()(
            POINTS, targets, replace(predictions, logits=predictions.logits[..., :2]), assignment
        )
