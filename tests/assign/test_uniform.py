"""Uniform matching on paper, and against obvious loops."""

from typing import get_args

import pytest
import torch
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from every_assigner import one_level_priors, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from uniform_loops import picture

from boxmatch.assign import Uniform
from boxmatch.assign.uniform import Collision
from boxmatch.priors import Priors
from boxmatch.structures import REASONS, Assignment, Predictions, Targets

ROW = one_level_priors(1, 6, 8, [(8, 8)])  # centres x = 4, 12, …, 44 at y = 4
FIRST, SECOND = [0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]
FAR = [400.0, 400.0, 408.0, 408.0]


def said(boxes: list[list[float]], priors: Priors = ROW) -> Predictions:
    shape = (1, len(priors))
    return Predictions(
        logits=torch.zeros(*shape, 1), deltas=torch.zeros(*shape, 4), boxes=torch.tensor([boxes])
    )


def call(*boxes: list[float], predicted: list[list[float]], **options) -> Assignment:
    targets = Targets.from_lists([list(boxes)], [[0] * len(boxes)])
    return Uniform(**options)(ROW, targets, said(predicted), explain=True)


def test_the_nearest_predictions_and_the_nearest_anchors_learn_the_box():
    # Box [4, 12]: anchors 0 and 1 are 4 px off, IoU 1/3. Predictions 3 and 1 are nearest.
    box = [4.0, 0.0, 12.0, 8.0]
    near, nearer = [5.0, 0.0, 13.0, 8.0], [4.0, 0.0, 12.5, 8.0]
    assignment = call(box, predicted=[FAR, near, FAR, nearer, FAR, FAR], topk=2, positive_iou=0.0)
    assert assignment.pairs.prior.tolist() == [0, 1, 3]
    assert assignment.weight.tolist() == [1.0, 2.0, 1.0]  # prior 1 is near twice
    assert assignment.score.tolist() == [1.0] * 3
    assert assignment.gt_index().tolist() == [[0, 0, -1, 0, -1, -1]]


def test_a_claim_whose_anchor_hardly_overlaps_the_box_is_given_up():
    assignment = call(FIRST, predicted=[FAR, FAR, FAR, FIRST, FAR, FAR], topk=1)
    assert assignment.pairs.prior.tolist() == [0]
    assert assignment.gt_index().tolist() == [[0, -1, -1, -2, -1, -1]]
    told = assignment.explanation
    assert told.score.tolist() == [1, 0]
    assert told.threshold.tolist() == pytest.approx([0.15, 0.15])
    assert [REASONS[reason] for reason in told.reason] == ["kept", "ignored"]


def test_an_anchor_at_the_threshold_learns():
    half = [0.0, 0.0, 16.0, 8.0]  # IoU 1/2 with anchors 0 and 1
    assert len(call(half, predicted=[FAR] * 6, topk=1, positive_iou=0.5).pairs) == 1
    assert len(call(half, predicted=[FAR] * 6, topk=1, positive_iou=0.51).pairs) == 0


def test_a_right_prediction_that_nobody_claims_takes_no_part():
    predicted = [FIRST, FIRST, [0.0, 0.0, 8.0, 5.75], [0.0, 0.0, 8.0, 5.5], FAR, FAR]  # IoU 0.72 and 0.69
    assert call(FIRST, predicted=predicted, topk=1).gt_index().tolist() == [[0, -2, -2, -1, -1, -1]]
    off = call(FIRST, predicted=predicted, topk=1, ignore_iou=1.0)
    assert off.gt_index().tolist() == [[0, -1, -1, -1, -1, -1]]


def test_equal_distances_go_to_the_lowest_prior():
    between = [8.0, 0.0, 16.0, 8.0]
    grid = one_level_priors(3, 3, 8, [(8, 8)])
    targets = Targets.from_lists([[[8.0, 8.0, 16.0, 16.0]]], [[0]])
    assignment = Uniform(topk=3, positive_iou=0.0)(grid, targets, said([FAR] * 9, grid))
    assert assignment.candidates.prior.tolist() == [0, 1, 2, 3, 4]  # predictions 0, 1, 2; anchors 4, 1, 3
    assert call(between, predicted=[FIRST] * 6, topk=2, positive_iou=0.0).candidates.prior.tolist() == [0, 1]


SHARED = [FAR, FIRST, SECOND, FAR, FAR, FAR]
"""Prior 1 is the nearest prediction to FIRST and the nearest anchor to SECOND; prior 2 predicts SECOND."""


def test_a_prior_that_several_claim_learns_all_boxes_and_the_class_of_one():
    assignment = call(FIRST, SECOND, predicted=SHARED, topk=1, positive_iou=0.0)
    pairs = list(zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()))
    assert pairs == [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert assignment.score.tolist() == [1, 0, 1, 1]  # of equal rank the anchor's claim is the last
    assert assignment.gt_index().tolist() == [[0, 1, 1, -1, -1, -1]]
    assert assignment.stats().contested == 1


def test_of_claims_of_one_kind_and_rank_the_last_row_owns_or_the_nearest():
    near, nearer = [1.0, 0.0, 9.0, 8.0], [0.5, 0.0, 8.5, 8.0]
    last = call(nearer, near, predicted=[FAR] * 6, topk=1)
    assert last.gt_index()[0, 0] == 1
    for boxes, owner in (((nearer, near), 0), ((near, nearer), 1), ((near, near), 0)):
        nearest = call(*boxes, predicted=[FAR] * 6, topk=1, collision="nearest")
        assert nearest.gt_index()[0, 0] == owner


def test_the_claim_of_greatest_rank_owns():
    # Anchor 1 is second to FIRST and first to SECOND, anchor 0 the other way round.
    assignment = call(FIRST, SECOND, predicted=[FAR] * 6, topk=2, positive_iou=0.0)
    assert assignment.gt_index()[0, :2].tolist() == [1, 0]
    nearest = call(FIRST, SECOND, predicted=[FAR] * 6, topk=2, positive_iou=0.0, collision="nearest")
    assert nearest.gt_index()[0, :2].tolist() == [0, 1]


def test_where_the_owning_claim_is_given_up_the_prior_takes_no_part():
    # As above; the owning claims have IoU 0.
    assignment = call(FIRST, SECOND, predicted=[FAR] * 6, topk=2)
    assert len(assignment.pairs) == 0
    assert assignment.ignored[0, :2].all()


@given(
    grid=grids(),
    images=batches(),
    seed=st.integers(0, 2**31 - 1),
    topk=st.sampled_from([1, 2, 4, 30]),
    positive_iou=st.sampled_from([0.0, 0.15, 0.5]),
    ignore_iou=st.sampled_from([0.3, 0.7]),
    collision=st.sampled_from(get_args(Collision)),
)
@settings(max_examples=40, deadline=None)
def test_it_equals_the_loops(grid, images, seed, topk, positive_iou, ignore_iou, collision) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    predictions = make_predictions(priors, targets, seed)
    assigner = Uniform(topk=topk, positive_iou=positive_iou, ignore_iou=ignore_iou, collision=collision)
    assignment = assigner(priors, targets, predictions)
    assert predictions.boxes is not None
    weight = {
        (gt, prior): int(times)
        for gt, prior, times in zip(
            assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist(), assignment.weight.tolist()
        )
    }
    owner, first = assignment.gt_index(), 0
    for image, boxes in enumerate(images):
        wanted = picture(
            priors, boxes, predictions.boxes[image].tolist(), topk, positive_iou, ignore_iou, collision
        )
        rows = range(first, first + len(boxes))
        assert {(gt - first, prior): n for (gt, prior), n in weight.items() if gt in rows} == wanted.rows
        here = owner[image].tolist()
        assert {prior: gt - first for prior, gt in enumerate(here) if gt >= 0} == wanted.owner
        assert {prior for prior, gt in enumerate(here) if gt == -2} == wanted.ignored
        first += len(boxes)


def test_priors_on_no_grid_are_matched_alike():
    targets = random_batch((5, 0, 8))
    predictions = make_predictions(ROW, targets, 1)
    free = Priors.from_boxes(ROW.boxes)
    on_grid, off_grid = (Uniform(topk=3)(priors, targets, predictions) for priors in (ROW, free))
    assert torch.equal(on_grid.gt_index(), off_grid.gt_index())
    assert torch.equal(on_grid.weight, off_grid.weight)


@pytest.mark.parametrize(
    "arguments",
    [{"topk": 0}, {"positive_iou": -0.1}, {"positive_iou": 1.1}, {"ignore_iou": 0.0}, {"ignore_iou": 2.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected topk of 1 or more"):
        Uniform(**arguments)


def test_unknown_words_and_predictions_without_boxes_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="collision"):
        Uniform(collision="first")
    blank = Predictions(logits=torch.zeros(1, 6, 1), deltas=torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="Uniform compares predicted boxes"):
        Uniform()(ROW, Targets.from_lists([[FIRST]], [[0]]), blank)


def test_it_shows_its_options():
    assert repr(Uniform()) == "Uniform(topk=4, positive_iou=0.15, ignore_iou=0.7, collision='last')"
