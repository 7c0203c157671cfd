"""Task-aligned assignment on paper, and against slow double-precision loops."""

import math
from contextlib import ExitStack
from dataclasses import asdict
from unittest.mock import patch

import pytest
import torch
from decisions import Decisions
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from dynamic_k_loops import with_classes
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from task_aligned_loops import Rule, task_aligned

from boxmatch import segments
from boxmatch.assign import TaskAligned, alignment
from boxmatch.structures import Assignment, Predictions, Targets

POINTS = one_level_priors(1, 4, 8, [(8, 8)])  # centres x = 4, 12, 20, 28 at y = 4
WIDE = [0.0, 0.0, 32.0, 8.0]
LEFT = [0.0, 0.0, 16.0, 8.0]


def predicted(boxes: list[list[float]], probabilities: list[float]) -> Predictions:
    """One image, one class, sure that there is an object."""
    logit = torch.logit(torch.tensor(probabilities)).reshape(1, -1, 1)
    return Predictions(logits=logit, deltas=torch.zeros(1, len(boxes), 4), boxes=torch.tensor([boxes]))


def test_the_best_aligned_priors_inside_the_box_learn_it():
    predictions = predicted([WIDE, LEFT, WIDE, WIDE], [0.1, 0.9, 0.4, 0.9])
    assignment = TaskAligned(topk=2, similarity="iou")(
        POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions
    )
    # LEFT overlaps WIDE by half: 0.9 ** 0.5 / 64 is less than the others' 0.1 ** 0.5 and more.
    assert assignment.pairs.prior.tolist() == [2, 3]
    assert assignment.score.tolist() == pytest.approx([math.sqrt(0.4 / 0.9), 1.0], rel=1e-4)
    assert torch.equal(assignment.weight, assignment.score)


def test_a_contested_prior_goes_to_the_box_it_overlaps_more():
    predictions = predicted([LEFT, LEFT, WIDE, WIDE], [0.5] * 4)
    assignment = TaskAligned(topk=4, similarity="iou")(
        POINTS, Targets.from_lists([[WIDE, LEFT]], [[0, 0]]), predictions
    )
    assert assignment.gt_index().tolist() == [[1, 1, 0, 0]]
    assert assignment.stats().contested == 2


def test_a_box_that_nothing_overlaps_learns_nothing():
    far = [[100.0, 100.0, 110.0, 110.0]] * 4
    assignment = TaskAligned()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predicted(far, [0.5] * 4))
    assert len(assignment.pairs) == 0
    assert assignment.stats().starved.tolist() == [0]


def test_predictions_without_boxes_are_refused():
    predictions = Predictions(logits=torch.zeros(1, 4, 1), deltas=torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        TaskAligned()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions)


def scores(assignment: Assignment) -> dict[tuple[int, int], float]:
    """Score of each pair."""
    pairs = zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist())
    return dict(zip(pairs, assignment.score.tolist()))


def test_topk2_keeps_the_best_aligned_of_what_a_box_owns():
    predictions = predicted([LEFT, LEFT, WIDE, WIDE], [0.9, 0.5, 0.4, 0.5])
    targets = Targets.from_lists([[WIDE, LEFT]], [[0, 0]])
    one_to_one = TaskAligned(topk=4, topk2=1, similarity="iou")
    assignment = one_to_one(POINTS, targets, predictions, explain=True)
    assert scores(assignment) == {(0, 3): 1, (1, 0): 1}
    assert assignment.explanation is not None
    counts = assignment.explanation.counts()
    # WIDE loses 0 and 1 to LEFT, which has the greater overlap there; 2 and 1 are second best.
    assert (counts["kept"], counts["lost_to_gt"], counts["not_topk"]) == (2, 2, 2)


def test_a_box_between_the_points_gets_candidates_by_a_least_side():
    between = [13.0, 1.0, 19.0, 7.0]
    targets = Targets.from_lists([[between]], [[0]])
    predictions = predicted([between] * 4, [0.5] * 4)
    assert len(TaskAligned(similarity="iou")(POINTS, targets, predictions).pairs) == 0
    # 16 px around x = 16 reach from 8 to 24, over points at 12 and 20; in y from -4 to 12.
    for least in (16.0, (8.0, 16.0)):
        assigner = TaskAligned(similarity="iou", min_side=least)
        assert scores(assigner(POINTS, targets, predictions)) == {(0, 1): 1, (0, 2): 1}
    # 8 px end on the points, and sides of 6 px are not below 6 px.
    for least in (8.0, (6.0, 16.0)):
        assigner = TaskAligned(similarity="iou", min_side=least)
        assert len(assigner(POINTS, targets, predictions).pairs) == 0


def test_candidates_may_be_limited_to_the_reach_of_the_head():
    predictions = predicted([WIDE] * 4, [0.5] * 4)
    near = TaskAligned(similarity="iou", max_distance=2.5)(
        POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions
    )
    # The far side is 28, 20, 20 and 28 px away; 2.5 strides are 20.
    assert near.pairs.prior.tolist() == [1, 2]


def test_top_k_first_may_spend_a_place_on_a_prior_outside():
    targets = Targets.from_lists([[LEFT]], [[0]])
    predictions = predicted([LEFT, LEFT, LEFT, WIDE], [0.3, 0.5, 0.9, 0.9])
    plain = TaskAligned(topk=2, similarity="iou")(POINTS, targets, predictions)
    assert plain.pairs.prior.tolist() == [0, 1]
    first = TaskAligned(topk=2, similarity="iou", topk_first=True)(POINTS, targets, predictions, explain=True)
    assert first.pairs.prior.tolist() == [1]
    assert first.explanation is not None
    assert first.explanation.counts()["outside"] == 1
    paper = TaskAligned.tood()
    assert (paper.alpha, paper.topk, paper.topk_first) == (1, 13, True)


def test_a_box_left_empty_may_be_rescued_by_the_best_prior_anywhere():
    between = [13.0, 1.0, 19.0, 7.0]
    targets = Targets.from_lists([[between]], [[0]])
    predictions = predicted([between] * 4, [0.5, 0.5, 0.5, 0.9])
    assert scores(TaskAligned.yolov9()(POINTS, targets, predictions)) == {(0, 3): 1}


def test_a_contested_prior_may_go_to_a_box_that_did_not_select_it():
    # All boxes hold all points. The third overlaps prediction 0 most, but with one place takes 1.
    third = [0.0, 0.0, 31.0, 8.0]
    targets = Targets.from_lists([[WIDE, [0.0, 0.0, 33.0, 8.0], third]], [[0, 0, 1]])
    chances = torch.tensor([[0.9, 0.2], [0.1, 0.9], [0.1, 0.1], [0.1, 0.1]])
    predictions = Predictions(torch.logit(chances)[None], torch.zeros(1, 4, 4), torch.tensor([[third] * 4]))
    selecting = TaskAligned(topk=1, similarity="iou")(POINTS, targets, predictions)
    assert selecting.gt_index().tolist() == [[0, 2, -1, -1]]
    containing = TaskAligned(topk=1, similarity="iou", rivals="containing")(POINTS, targets, predictions)
    assert containing.gt_index().tolist() == [[2, 2, -1, -1]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"topk": 0},
        {"alpha": -1.0},
        {"beta": -1.0},
        {"topk2": 11},
        {"topk2": 0},
        {"min_side": -1.0},
        {"min_side": (16.0, 8.0)},
        {"max_distance": 0.0},
        {"rivals": "all"},
        {"similarity": "overlap"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        TaskAligned(**arguments)


RULES = st.builds(
    Rule,
    alpha=st.sampled_from([0.0, 0.5, 1.0, 0.7]),
    beta=st.sampled_from([6.0, 1.0]),
    topk=st.sampled_from([2, 5, 10]),
    topk2=st.sampled_from([None, None, 1, 2]),
    similarity=st.sampled_from(["iou", "ciou", "nwd"]),
    min_side=st.sampled_from([0.0, 0.0, 16.0, (8.0, 16.0)]),
    max_distance=st.sampled_from([math.inf, math.inf, 2.5]),
    topk_first=st.booleans(),
    rescue=st.booleans(),
    rivals=st.sampled_from(["selecting", "containing"]),
)


def bounds_at_work() -> ExitStack:
    """Small problems are looked at as large ones are: through samples and bounds."""
    stack = ExitStack()
    stack.enter_context(patch.multiple(segments, SAMPLE=3, LONG_SEGMENT=1))
    stack.enter_context(patch.object(alignment, "FEW_PAIRS", 0))
    return stack


@given(grids(), batches(), RULES, st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_equals_the_loops(grid, images, rule, seed, quality):
    priors, targets = make_priors(grid), make_targets(images)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, 3, quality)
    decisions = Decisions(absolute=0, relative=1e-4)
    expected = task_aligned(rule, priors, targets, predictions, decisions)
    if not decisions.doubtful:
        assigner = TaskAligned(**asdict(rule))
        assert scores(assigner(priors, targets, predictions)) == pytest.approx(expected, rel=1e-3)
        with bounds_at_work():
            assert scores(assigner(priors, targets, predictions)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("topk", [1, 3, 10])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_equals_the_loops_on_fuller_pictures(topk, seed):
    priors, targets = two_level_priors(), random_batch(seed=seed)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, 5, quality=True)
    decisions = Decisions(absolute=0, relative=1e-5)
    expected = task_aligned(Rule(topk=topk), priors, targets, predictions, decisions)
    assert not decisions.doubtful, "take another seed"
    with bounds_at_work():
        assignment = TaskAligned(topk=topk, similarity="iou")(priors, targets, predictions)
    assert scores(assignment) == pytest.approx(expected, rel=1e-4)


def test_bounds_leave_the_result_as_it_is():
    """On lists long enough to be cut down without any help; explained calls score every pair."""
    priors = one_level_priors(100, 100, 8, [(8, 8)])
    boxes = [[[3.0, 5.0, 700.0, 650.0], [100.0, 90.0, 400.0, 799.0]]]
    targets = Targets.from_lists(boxes, [[0, 1]])
    predictions = with_classes(make_predictions(priors, targets, 0), 0, 2, quality=True)
    assert len(priors.inside(targets)) > alignment.FEW_PAIRS
    for assigner in (TaskAligned(), TaskAligned(alpha=0.7, similarity="giou")):
        assert scores(assigner(priors, targets, predictions)) == scores(
            assigner(priors, targets, predictions, explain=True)
        )
