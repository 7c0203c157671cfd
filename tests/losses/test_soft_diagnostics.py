"""What dual weighting says about the balance of a batch, beside its loss."""

from dataclasses import replace

import pytest
import torch
from soft_scene import crowded_targets, half_trained, points, single

from boxmatch.assign import DualWeight
from boxmatch.losses import DualWeightLoss, soft_pairs
from boxmatch.structures import Targets

POINTS = points()


def said(targets: Targets, **options) -> tuple[dict[str, float], dict[str, float], DualWeightLoss]:
    """Diagnostics and terms of one batch."""
    predictions = single(half_trained(POINTS, targets))
    loss = DualWeightLoss(**options)
    terms = loss(POINTS, targets, predictions, DualWeight()(POINTS, targets, predictions))
    numbers = {name: float(value) for name, value in loss.diagnostics.items()}
    return numbers, {name: float(value.detach()) for name, value in terms.items()}, loss


def test_they_count_pairs_shared_priors_and_the_weight_of_a_box(monkeypatch):
    monkeypatch.setattr(soft_pairs, "_PAIRS_AT_ONCE", 7)
    targets = crowded_targets()
    predictions = single(half_trained(POINTS, targets))
    assignment = DualWeight()(POINTS, targets, predictions)
    numbers, _, _ = said(targets)
    gt, prior = assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()
    places = [(int(targets.image[row]), p) for row, p in zip(gt, prior)]
    assert numbers["pairs"] == len(gt)
    assert numbers["shared_priors"] == sum(places.count(place) > 1 for place in set(places)) > 0
    # The box of 2 × 1 pixels has no point and does not count.
    sums = [float(assignment.weight[assignment.pairs.gt == row].sum()) for row in sorted(set(gt))]
    assert len(sums) == len(targets) - 1
    assert numbers["weight_per_box"] == pytest.approx(sum(sums) / len(sums), rel=1e-5)
    assert numbers["boxes_left_out"] == 0


def test_they_tell_the_balance_of_the_terms_and_the_normaliser():
    numbers, terms, loss = said(crowded_targets())
    ratio = (terms["class_positive"] + terms["box"]) / terms["class_negative"]
    assert numbers["positive_to_negative"] == pytest.approx(ratio, rel=1e-5)
    assert numbers["negative_normaliser"] == pytest.approx(float(loss.running_negatives), rel=1e-6)
    assert numbers["negative_normaliser"] > 1


def test_boxes_that_the_assigner_leaves_out_are_counted():
    targets = crowded_targets()
    predictions = single(half_trained(POINTS, targets))
    loss = DualWeightLoss()
    with pytest.warns(UserWarning, match="boxes_left_out"):
        assignment = DualWeight(max_gt_per_image=3)(POINTS, targets, predictions)
    loss(POINTS, targets, predictions, assignment)
    assert float(loss.diagnostics["boxes_left_out"]) == 1


def test_a_batch_without_objects_has_numbers_of_the_same_names():
    numbers, _, _ = said(Targets.from_lists([[], []], [[], []]))
    full, _, _ = said(crowded_targets())
    assert numbers.keys() == full.keys()
    assert all(value == 0 for name, value in numbers.items() if name != "negative_normaliser")


def test_they_are_plain_values_of_training_alone():
    targets = crowded_targets()
    predictions = half_trained(POINTS, targets)
    loss = DualWeightLoss().eval()
    assignment = DualWeight()(POINTS, targets, single(predictions))
    loss(POINTS, targets, predictions, assignment)
    assert loss.diagnostics == {}
    loss.train()(POINTS, targets, replace(predictions), assignment)
    assert all(
        value.dtype == torch.float32 and not value.requires_grad for value in loss.diagnostics.values()
    )
    assert not any("diagnostics" in name for name in loss.state_dict())
