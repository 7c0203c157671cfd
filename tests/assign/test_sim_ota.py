"""SimOTA on paper, and against slow double-precision loops."""

from unittest.mock import patch

import pytest
import torch
from decisions import Decisions
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from dynamic_k_loops import sim_ota, with_classes
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import SimOTA, background_cost
from boxmatch.structures import Assignment, Predictions, Targets

POINTS = one_level_priors(1, 6, 8, [(8, 8)])  # centres x = 4, 12, 20, 28, 36, 44 at y = 4
WIDE = [0.0, 0.0, 48.0, 8.0]  # its centre, x = 24, has 20 and 28 within 1.5 strides, 12 and 36 on the border
HALF = [0.0, 0.0, 24.0, 8.0]


def predicted(boxes: list[list[float]], chances: list[list[float]]) -> Predictions:
    """One image; the chance of each class at each prior."""
    return Predictions(
        logits=torch.logit(torch.tensor([chances])),
        deltas=torch.zeros(1, len(boxes), 4),
        boxes=torch.tensor([boxes]),
    )


def found(assignment: Assignment) -> dict[tuple[int, int], float]:
    """Score of each pair."""
    pairs = zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist())
    return dict(zip(pairs, assignment.score.tolist()))


def test_the_number_of_priors_is_what_the_overlaps_near_the_centre_add_up_to():
    targets = Targets.from_lists([[WIDE]], [[0]])
    perfect = predicted([WIDE] * 6, [[0.5]] * 6)
    assert found(SimOTA()(POINTS, targets, perfect)) == {(0, 2): 1, (0, 3): 1}
    # 0.5 + 0.5 is 1, and so is the least number of any box; of equal costs the first prior.
    half = predicted([WIDE, WIDE, HALF, HALF, WIDE, WIDE], [[0.5]] * 6)
    assert found(SimOTA()(POINTS, targets, half)) == {(0, 2): 0.5}
    assert found(SimOTA(candidate_topk=1)(POINTS, targets, perfect)) == {(0, 2): 1}


def test_the_radius_widens_the_region_and_inside_clips_it():
    targets = Targets.from_lists([[[16.0, 0.0, 32.0, 8.0]]], [[0]])
    predictions = predicted([[16.0, 0.0, 32.0, 8.0]] * 6, [[0.5]] * 6)
    assert set(found(SimOTA(center_radius=2.0)(POINTS, targets, predictions))) == {
        (0, prior) for prior in (1, 2, 3, 4)
    }
    inside = SimOTA(center_radius=2.0, candidates="inside_and_center")
    assert set(found(inside(POINTS, targets, predictions))) == {(0, 2), (0, 3)}


def test_a_prior_that_is_sure_of_another_class_is_dearer():
    targets = Targets.from_lists([[WIDE]], [[1]])
    chances = [[0.5, 0.5]] * 6
    chances[2] = [0.9, 0.5]
    predictions = predicted([WIDE, WIDE, HALF, HALF, WIDE, WIDE], chances)
    assert found(SimOTA()(POINTS, targets, predictions)) == {(0, 3): 0.5}


def test_a_contested_prior_goes_to_the_cheapest_of_all_boxes_even_to_one_that_did_not_keep_it():
    # All three want prior 2 by its place. The third is cheapest there but, with one prior to keep, keeps 3.
    boxes = [WIDE, WIDE, WIDE]
    chances = [[0.5, 0.5]] * 6
    chances[2] = [0.3, 0.6]
    chances[3] = [0.05, 0.9]
    targets = Targets.from_lists([boxes], [[0, 0, 1]])
    predictions = predicted([HALF] * 6, chances)
    assignment = SimOTA()(POINTS, targets, predictions, explain=True)
    assert found(assignment) == {(2, 2): 0.5, (2, 3): 0.5}
    assert assignment.stats().contested == 1
    assert assignment.explanation is not None
    told = {"kept": 2, "lost_to_gt": 2, "not_topk": 2}
    assert {name: count for name, count in assignment.explanation.counts().items() if count} == told


def test_a_box_without_candidates_gets_nothing_unless_it_may_take_from_its_neighbours():
    tiny = [70.0, 0.0, 72.0, 8.0]
    targets = Targets.from_lists([[WIDE, tiny]], [[0, 0]])
    predictions = predicted([WIDE] * 6, [[0.5]] * 6)
    assert SimOTA()(POINTS, targets, predictions).stats().starved.tolist() == [1]
    # The legacy rule gives it the first of the other's priors, which the other keeps as the cheaper.
    legacy = SimOTA(legacy_penalty=True)(POINTS, targets, predictions)
    assert found(legacy) == {(0, 2): 1, (0, 3): 1}
    assert legacy.candidates is not None
    assert (1, 2) in zip(legacy.candidates.gt.tolist(), legacy.candidates.prior.tolist())


def test_saturated_predictions_are_compared_and_not_nan():
    logits = torch.tensor([[[200.0], [-200.0], [200.0], [-200.0], [0.0], [0.0]]])
    predictions = Predictions(logits, torch.zeros(1, 6, 4), torch.tensor([[WIDE] * 6]))
    assignment = SimOTA()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions, explain=True)
    assert assignment.explanation is not None
    assert assignment.explanation.score.tolist() == pytest.approx([0, -100], abs=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"center_radius": 0.0},
        {"center_radius": float("inf")},
        {"candidate_topk": 0},
        {"iou_weight": -1.0},
        {"candidates": "inside"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    # The shape checker of the tests looks at the types, and so at names, before the class does.
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments)).removeprefix("candidate_")):
        SimOTA(**arguments)


def test_predictions_without_boxes_and_labels_beyond_the_classes_are_refused():
    targets = Targets.from_lists([[WIDE]], [[3]])
    with pytest.raises(ValueError, match="decoded boxes"):
        SimOTA()(POINTS, targets, Predictions(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4)))
    with pytest.raises(ValueError, match="labels below 1"):
        SimOTA()(POINTS, targets, predicted([WIDE] * 6, [[0.5]] * 6))


OPTIONS = st.fixed_dictionaries(
    {
        "radius": st.sampled_from([0.7, 1.5, 2.5]),
        "inside": st.booleans(),
        "legacy": st.booleans(),
        "topk": st.sampled_from([1, 3, 10]),
        "iou_weight": st.sampled_from([0.0, 3.0]),
    }
)


def assigner_of(options: dict) -> SimOTA:
    """The same rule as the loop's arguments say."""
    return SimOTA(
        center_radius=options["radius"],
        candidates="inside_and_center" if options["inside"] else "center",
        candidate_topk=options["topk"],
        iou_weight=options["iou_weight"],
        legacy_penalty=options["legacy"],
    )


@given(grids(), batches(), OPTIONS, st.integers(0, 10**6), st.sampled_from([1, 3, 6]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_equals_the_loops(grid, images, options, seed, classes, quality):
    priors, targets = make_priors(grid), make_targets(images, classes)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, classes, quality)
    # At 1e6 float32 has steps of 0.06, and so have the loops: only the absolute difference may be rounding.
    decisions = Decisions(relative=0)
    expected = sim_ota(priors, targets, predictions, decisions, **options)
    with patch.object(background_cost, "LOGITS_AT_ONCE", 10):
        result = found(assigner_of(options)(priors, targets, predictions))
    if not decisions.doubtful:
        assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_the_loops_on_fuller_pictures(seed):
    priors, targets = two_level_priors(), random_batch(seed=seed)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, 5, seed % 2 == 0)
    decisions = Decisions(relative=0)
    expected = sim_ota(priors, targets, predictions, decisions, legacy=seed % 4 == 3)
    result = found(SimOTA(legacy_penalty=seed % 4 == 3)(priors, targets, predictions))
    assert not decisions.doubtful, "take another seed"
    assert result == pytest.approx(expected, rel=1e-5)
