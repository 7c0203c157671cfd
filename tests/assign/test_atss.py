"""ATSS on paper, and against obvious loops."""

import pytest
import torch
from atss_loops import batches, check, grids, make_priors, make_targets
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import ATSS, INCLUSIVE_INSIDE_MARGIN
from boxmatch.assign.adaptive import mean_and_std
from boxmatch.assign.measures import NWD
from boxmatch.assign.similarity import pair_similarity
from boxmatch.priors import AnchorGrid
from boxmatch.structures import REASONS, Targets

ROW = one_level_priors(1, 8, 8, [(8, 8)])  # centres x = 4, 12, …, 60 at y = 4


def one_image(*boxes: list[float]) -> Targets:
    return Targets.from_lists([list(boxes)], [[0] * len(boxes)])


def test_priors_at_least_mean_plus_std_of_the_candidates_learn_the_box():
    assignment = ATSS()(ROW, one_image([0, 0, 16, 8]), explain=True)
    # IoU 1/2 with the first two of eight priors: mean 1/8, deviation sqrt((2 · 9/64 + 6 / 64) / 7) = 0.2315.
    told = assignment.explanation
    assert told.score.tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert told.threshold.tolist() == pytest.approx([0.125 + 0.2315] * 8, abs=1e-4)
    assert [REASONS[reason] for reason in told.reason] == ["kept"] * 2 + ["below_threshold"] * 6
    assert assignment.gt_index().tolist() == [[0, 0, -1, -1, -1, -1, -1, -1]]


def test_with_few_candidates_the_threshold_may_be_out_of_reach():
    # 1/2, 1/2 and 0: mean 1/3, deviation 0.289.
    assignment = ATSS(topk=3)(ROW, one_image([0, 0, 16, 8]))
    assert assignment.stats().starved.tolist() == [0]


def test_a_lone_candidate_reaches_its_own_threshold():
    priors = one_level_priors(1, 1, 8, [(8, 8)])
    assert ATSS()(priors, one_image([0, 0, 30, 30])).gt_index().tolist() == [[0]]


@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7])
def test_equal_scores_reach_their_threshold_exactly(score):
    scores = torch.full((3, 45), score)
    mean, std = mean_and_std(scores)
    assert torch.equal((mean + std).float(), scores[:, 0])


@pytest.mark.parametrize(("margin", "positives"), [(0.0, 2), (3.99, 2), (4.0, 0)])
def test_the_centre_lies_farther_inside_the_box_than_the_margin(margin, positives):
    assignment = ATSS(inside_margin=margin)(ROW, one_image([0, 0, 16, 8]), explain=True)
    assert len(assignment.pairs) == positives
    assert assignment.explanation.counts()["outside"] == 2 - positives


@pytest.mark.parametrize(("left", "learned"), [(3.98, True), (3.995, False)])
def test_the_inclusive_margin_is_a_hundredth_of_a_pixel_between_inclusive_edges(left, learned):
    # An anchor with inclusive edges 0 and 8 has its centre at 4; a lone candidate reaches its threshold.
    priors = AnchorGrid([[(9, 9)]], (8,), shift=0.5)([(1, 1)])
    box_as_plain = [left, 0.0, 20.0 + 1, 20.0 + 1]
    assignment = ATSS(inside_margin=INCLUSIVE_INSIDE_MARGIN)(priors, one_image(box_as_plain))
    assert (len(assignment.pairs) == 1) == learned
    assert len(ATSS()(priors, one_image(box_as_plain)).pairs) == 1


def test_a_contested_prior_goes_to_the_box_it_overlaps_more_and_of_equal_boxes_to_the_first():
    wide, narrow = [0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 10.0, 8.0]
    assignment = ATSS()(ROW, one_image(wide, narrow, narrow))
    assert assignment.gt_index()[0, :3].tolist() == [1, 0, -1]
    assert assignment.stats().contested == 1


def test_a_cell_brings_all_its_anchors_and_a_small_level_all_it_has():
    priors = AnchorGrid([[(8, 8), (16, 16)], [(32, 32)]], (8, 16))([(4, 4), (1, 2)])
    told = ATSS(topk=3)(priors, one_image([0, 0, 8, 8]), explain=True).explanation
    assert told.pairs.prior.tolist() == [0, 1, 2, 3, 8, 9, 32, 33]


@pytest.mark.parametrize("similarity", ["giou", "diou", "ciou", "kld", NWD(constant=9.0)])
def test_the_similarity_takes_the_place_of_the_iou(similarity):
    priors, targets = two_level_priors(), random_batch()
    told = ATSS(topk=4, similarity=similarity)(priors, targets, explain=True).explanation
    score = pair_similarity(targets.boxes[told.pairs.gt], priors.boxes[told.pairs.prior], similarity)
    assert torch.equal(told.score, score)
    rows = score.view(len(targets), -1).double()
    threshold = (rows.mean(1) + rows.std(1)).float()
    assert torch.equal(told.threshold.view_as(rows), threshold[:, None].expand_as(rows))


@pytest.mark.parametrize(
    "arguments",
    [
        {"topk": 0},
        {"inside_margin": -0.5},
        {"inside_margin": float("nan")},
        {"inside_margin": float("inf")},
        {"similarity": "iof"},
        {"ignore_threshold": 0.2},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    # The shape checker of the tests knows the names too.
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        ATSS(**arguments)


@given(
    grid=grids(),
    images=batches(),
    topk=st.sampled_from([1, 2, 4, 9, 30]),
    margin=st.sampled_from([0.0, 0.5, INCLUSIVE_INSIDE_MARGIN, 3.0]),
    on_grid=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_it_equals_obvious_loops(grid, images, topk, margin, on_grid):
    priors, targets = make_priors(grid, on_grid), make_targets(images)
    assignment = ATSS(topk=topk, inside_margin=margin)(priors, targets, explain=True)
    check(assignment, priors, targets, priors.boxes.tolist(), "atss", topk, margin)
