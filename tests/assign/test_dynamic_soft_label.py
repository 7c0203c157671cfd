"""Dynamic soft label on paper, and against slow double-precision loops."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
from decisions import Decisions
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from dynamic_k_loops import dynamic_soft_label, with_classes
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from test_sim_ota import found, predicted

from boxmatch import segments
from boxmatch.assign import DynamicSoftLabel, background_cost
from boxmatch.assign import dynamic_soft_label as module
from boxmatch.structures import Predictions, Targets

POINTS = one_level_priors(1, 6, 8, [(8, 8)])  # centres x = 4, 12, 20, 28, 36, 44 at y = 4
WIDE = [0.0, 0.0, 48.0, 8.0]
HALF = [0.0, 0.0, 24.0, 8.0]


def test_the_number_of_priors_is_what_the_overlaps_inside_add_up_to():
    targets = Targets.from_lists([[WIDE]], [[0]])
    perfect = predicted([WIDE] * 6, [[0.5]] * 6)
    assert found(DynamicSoftLabel()(POINTS, targets, perfect)) == {(0, prior): 1 for prior in range(6)}
    # 2 · 1 + 4 · 0.5 is 4: the two whole ones and, of the others, those nearest to the middle, x = 24.
    mixed = predicted([WIDE, HALF, HALF, HALF, HALF, WIDE], [[0.5]] * 6)
    expected = {(0, 0): 1, (0, 2): 0.5, (0, 3): 0.5, (0, 5): 1}
    assert found(DynamicSoftLabel()(POINTS, targets, mixed)) == expected
    assert len(found(DynamicSoftLabel(topk=3)(POINTS, targets, mixed))) == 2


def test_a_stride_more_costs_ten_times_as_much():
    targets = Targets.from_lists([[WIDE]], [[0]])
    mixed = predicted([WIDE, HALF, HALF, HALF, HALF, WIDE], [[0.5]] * 6)
    # From 2.5 strides away an IoU of 1 is not worth 10^(2.5 + 1).
    expected = {(0, 1): 0.5, (0, 2): 0.5, (0, 3): 0.5, (0, 4): 0.5}
    assert found(DynamicSoftLabel(center_radius=-1.0)(POINTS, targets, mixed)) == expected
    told = DynamicSoftLabel(iou_weight=0.0)(POINTS, targets, mixed, explain=True).explanation
    assert told is not None
    # |0.5 - 0.5|² BCE is 0; at IoU 1 it is log(2) / 4.
    cost = [10**-0.5 + 0.1733, 10**-1.5, 10**-2.5, 10**-2.5, 10**-1.5, 10**-0.5 + 0.1733]
    assert told.score.tolist() == pytest.approx([-value for value in cost], abs=1e-4)


def test_the_other_classes_count_unless_only_the_own_is_asked_for():
    targets = Targets.from_lists([[WIDE]], [[1]])
    chances = [[0.5, 0.5]] * 6
    chances[2] = [0.95, 0.5]
    predictions = predicted([HALF, HALF, HALF, WIDE, HALF, HALF][::-1], chances)
    assert found(DynamicSoftLabel(topk=1)(POINTS, targets, predictions)) == {(0, 3): 0.5}
    assert found(DynamicSoftLabel(topk=1, class_cost="own")(POINTS, targets, predictions)) == {(0, 2): 1}


def test_a_box_takes_no_prior_outside_unless_those_of_its_neighbours_are_listed():
    between = [13.0, 0.0, 19.0, 8.0]
    targets = Targets.from_lists([[WIDE, between]], [[0, 0]])
    predictions = predicted([between] * 6, [[0.5]] * 6)
    assert DynamicSoftLabel()(POINTS, targets, predictions).stats().starved.tolist() == [1]
    learned = found(DynamicSoftLabel(candidates="inside_any", topk=1)(POINTS, targets, predictions))
    assert learned[1, 1] == 1


def test_saturated_predictions_and_far_priors_are_compared_and_not_nan():
    points = one_level_priors(1, 200, 8, [(8, 8)])
    huge = [0.0, 0.0, 1600.0, 8.0]
    logits = torch.tensor([200.0, -200.0]).repeat(100)[None, :, None]
    predictions = Predictions(logits, torch.zeros(1, 200, 4), torch.tensor([[huge] * 200]))
    assignment = DynamicSoftLabel()(points, Targets.from_lists([[huge]], [[0]]), predictions, explain=True)
    assert assignment.explanation is not None
    assert not assignment.explanation.score.isnan().any()
    assert len(assignment.pairs) == 13
    assert assignment.pairs.prior.float().mean() == pytest.approx(99.5, abs=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"center_radius": float("nan")},
        {"topk": 0},
        {"iou_weight": float("inf")},
        {"class_cost": "none"},
        {"candidates": "center"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        DynamicSoftLabel(**arguments)


def test_predictions_without_boxes_are_refused():
    predictions = Predictions(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        DynamicSoftLabel()(POINTS, Targets.from_lists([[WIDE]], [[3]]), predictions)


OPTIONS = st.fixed_dictionaries(
    {
        "every_class": st.booleans(),
        "every_candidate": st.booleans(),
        "topk": st.sampled_from([1, 4, 13]),
        "iou_weight": st.sampled_from([0.0, 3.0]),
        "radius": st.sampled_from([0.5, 3.0]),
    }
)


def assigner_of(options: dict) -> DynamicSoftLabel:
    """The same rule as the loop's arguments say."""
    return DynamicSoftLabel(
        topk=options["topk"],
        iou_weight=options["iou_weight"],
        center_radius=options["radius"],
        class_cost="all" if options["every_class"] else "own",
        candidates="inside_any" if options["every_candidate"] else "inside",
    )


def bounds_at_work() -> ExitStack:
    """Small problems are looked at as large ones are: through samples and bounds, and in parts."""
    stack = ExitStack()
    stack.enter_context(patch.multiple(segments, SAMPLE=3, LONG_SEGMENT=1))
    stack.enter_context(patch.object(module, "FEW_PAIRS", 0))
    stack.enter_context(patch.object(background_cost, "LOGITS_AT_ONCE", 10))
    return stack


@given(grids(), batches(), OPTIONS, st.integers(0, 10**6), st.sampled_from([1, 3, 6]))
@settings(max_examples=40, deadline=None)
def test_it_equals_the_loops(grid, images, options, seed, classes):
    priors, targets = make_priors(grid), make_targets(images, classes)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, classes, quality=False)
    decisions = Decisions()
    expected = dynamic_soft_label(priors, targets, predictions, decisions, **options)
    if not decisions.doubtful:
        assert found(assigner_of(options)(priors, targets, predictions)) == pytest.approx(expected, rel=1e-5)
        with bounds_at_work():
            bounded = found(assigner_of(options)(priors, targets, predictions))
        assert bounded == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("class_cost", ["all", "own"])
def test_it_equals_the_loops_on_fuller_pictures(seed, class_cost):
    priors, targets = two_level_priors(), random_batch(seed=seed)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, 5, quality=False)
    decisions = Decisions()
    expected = dynamic_soft_label(priors, targets, predictions, decisions, every_class=class_cost == "all")
    assert not decisions.doubtful, "take another seed"
    with bounds_at_work():
        result = found(DynamicSoftLabel(class_cost=class_cost)(priors, targets, predictions))
    assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("class_cost", ["all", "own"])
def test_bounds_leave_the_result_as_it_is(class_cost):
    """On lists long enough to be cut down without any help; explained calls score every pair."""
    priors = one_level_priors(60, 60, 8, [(8, 8)])
    targets = random_batch((9, 4), seed=3)
    scaled = Targets.from_lists(
        [5 * targets.boxes[targets.image == image] for image in range(2)],
        [targets.labels[targets.image == image] for image in range(2)],
    )
    predictions = with_classes(make_predictions(priors, scaled, 0), 0, 5, quality=False)
    assigner = DynamicSoftLabel(class_cost=class_cost)
    assert found(assigner(priors, scaled, predictions)) == found(
        assigner(priors, scaled, predictions, explain=True)
    )
