"""The limit to the boxes of a picture: who is left out, and what that means for the loss."""

import warnings
from dataclasses import replace

import pytest
import torch
from drawn_problems import make_predictions
from every_assigner import two_level_priors

from boxmatch.assign import DualWeight
from boxmatch.losses import DualWeightLoss
from boxmatch.structures import Predictions, Targets

PRIORS = two_level_priors()
BOXES = [[0.0, 0.0, 20.0, 20.0], [4.0, 4.0, 60.0, 60.0], [30.0, 30.0, 50.0, 50.0], [0.0, 40.0, 24.0, 64.0]]
TARGETS = Targets.from_lists([BOXES, [BOXES[0]]], [[0, 1, 0, 0], [1]])


def predictions() -> Predictions:
    return make_predictions(PRIORS, TARGETS, seed=0)


def test_the_largest_boxes_of_each_picture_are_assigned_and_of_equal_ones_the_first():
    with pytest.warns(UserWarning, match="DualWeight: .* max_gt_per_image=3 .* smallest"):
        assignment = DualWeight(max_gt_per_image=3)(PRIORS, TARGETS, predictions())
    assert assignment.pairs.gt.unique().tolist() == [0, 1, 3, 4]
    assert assignment.targets.ignore.tolist() == [False, False, True, False, False]
    without = TARGETS.select(torch.tensor([0, 1, 3, 4]))
    alone = DualWeight()(PRIORS, without, predictions())
    assert torch.equal(assignment.pairs.prior, alone.pairs.prior)
    assert torch.equal(assignment.weight, alone.weight)
    assert torch.equal(assignment.neg_weight, alone.neg_weight)


def test_priors_in_a_box_left_out_take_no_part_unless_they_learn_another():
    with pytest.warns(UserWarning):
        assignment = DualWeight(max_gt_per_image=1)(PRIORS, TARGETS, predictions())
    inside = PRIORS.inside(TARGETS)
    left_out = torch.isin(inside.gt, torch.tensor([0, 2, 3]))
    learned = set(assignment.pairs.prior[assignment.image == 0].tolist())
    expected = set(inside.prior[left_out].tolist()) - learned
    assert expected and assignment.ignored[0].nonzero().squeeze(1).tolist() == sorted(expected)
    assert not assignment.ignored[1].any()


def test_the_loss_counts_the_boxes_that_are_assigned():
    predicted = predictions()
    with pytest.warns(UserWarning):
        assignment = DualWeight(max_gt_per_image=1)(PRIORS, TARGETS, predicted)
    positives, _ = DualWeightLoss().normalisers(assignment.targets, torch.tensor(1.0))
    assert float(positives) == 2
    terms = DualWeightLoss()(PRIORS, TARGETS, predicted, assignment)
    rows = torch.tensor([1, 4])
    kept = replace(assignment, targets=TARGETS.select(rows))
    kept = replace(kept, pairs=replace(kept.pairs, gt=(assignment.pairs.gt == 4).long()))
    wanted = DualWeightLoss()(PRIORS, kept.targets, predicted, kept)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {name: float(term) for name, term in wanted.items()}
    )


def test_pictures_within_the_limit_are_assigned_as_without_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limited = DualWeight(max_gt_per_image=4)(PRIORS, TARGETS, predictions())
    free = DualWeight()(PRIORS, TARGETS, predictions())
    assert torch.equal(limited.weight, free.weight) and torch.equal(limited.ignored, free.ignored)


def test_ignore_regions_do_not_count_and_stay_what_they_are():
    targets = replace(TARGETS, ignore=torch.tensor([False, True, False, False, False]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assignment = DualWeight(max_gt_per_image=3)(PRIORS, targets, predictions())
    assert torch.equal(assignment.targets.ignore, targets.ignore)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="max_gt_per_image of 1 or more, or None, got 0"):
        DualWeight(max_gt_per_image=0)
