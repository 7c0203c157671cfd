"""PAA on paper, and against loops over boxes, priors and candidates."""

import math
from dataclasses import asdict, replace

import hypothesis.strategies as st
import pytest
import torch
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from jaxtyping import TypeCheckError
from paa_loops import Options, paa
from torch.testing import assert_close

from boxmatch.assign import PAA, paa_cost
from boxmatch.delta_coder import DeltaCoder
from boxmatch.losses import sigmoid_focal
from boxmatch.priors import Priors
from boxmatch.spatial import pieces
from boxmatch.structures import REASONS, Predictions, Targets

ROW = one_level_priors(1, 8, 8, [(16.0, 16.0)])  # centres x = 4, 12, …, 60 at y = 4
BOX = [0.0, -4.0, 64.0, 12.0]
"""Overlaps every prior of the row by a quarter, those at the ends by 0.18."""


def surprised(costs: list[float], box: list[float] = BOX) -> Predictions:
    """Predictions that locate the box perfectly and whose only class costs as much as asked for."""
    logits = torch.linspace(-16, 16, 100_001, dtype=torch.float64)
    loss = sigmoid_focal(logits, torch.ones_like(logits))
    logit = torch.stack([logits[(loss - cost).abs().argmin()] for cost in costs]).float()
    return Predictions(
        logits=logit.reshape(1, -1, 1),
        deltas=torch.zeros(1, len(costs), 4),
        boxes=torch.tensor(box).repeat(1, len(costs), 1),
    )


def one_box(box: list[float] = BOX) -> Targets:
    """A batch of one image with one box."""
    return Targets.from_lists([[box]], [[0]])


# Two groups: 0.3 is nearest to the mean of the lower one (0.305), 2.2 to that of the other (2.19).
COSTS = [2.0, 0.1, 0.32, 2.25, 0.3, 2.3, 0.5, 2.2]


@pytest.mark.parametrize(
    ("boundary", "positive", "ignored"),
    [("c", [1, 4], []), ("a", [1, 2, 4, 6], []), ("b", [1, 4], [0, 2, 6]), ("d", [1, 4], [2, 6])],
)
def test_the_boundary_lies_at_the_peak_of_the_better_gaussian(boundary, positive, ignored):
    found = PAA(boundary=boundary)(ROW, one_box(), surprised(COSTS))
    assert found.pairs.prior.tolist() == positive
    assert found.ignored[0].nonzero().squeeze(1).tolist() == ignored
    assert found.weight.tolist() == found.score.tolist() == [1.0] * len(positive)


def test_every_pair_is_explained_by_its_cost_and_the_boundary():
    found = PAA(boundary="b", topk=7)(ROW, one_box(), surprised(COSTS), explain=True)
    explanation = found.explanation
    assert_close(-explanation.score, torch.tensor(COSTS), rtol=1e-3, atol=1e-3)
    assert_close(-explanation.threshold, torch.full((8,), 0.3), rtol=1e-3, atol=1e-3)
    told = [REASONS[reason] for reason in explanation.reason.tolist()]
    kept, ignored, below = "kept", "ignored", "below_threshold"
    assert told == [ignored, kept, ignored, below, kept, "not_topk", ignored, below]


def test_only_the_best_of_each_level_take_part():
    found = PAA(topk=2)(ROW, one_box(), surprised(COSTS))
    assert found.candidates.prior.tolist() == [1, 4]
    levels = two_level_priors()
    targets = random_batch()
    found = PAA(topk=3)(levels, targets, random_predictions(levels, targets, 5, seed=0))
    slots = torch.bincount(found.candidates.gt * 2 + levels.level[found.candidates.prior])
    assert int(slots.max()) == 3


def test_of_equal_costs_the_lowest_prior_is_positive():
    found = PAA()(ROW, one_box(), surprised([0.5] * 8))
    assert found.pairs.prior.tolist() == [0]
    assert PAA(boundary="a")(ROW, one_box(), surprised([0.5] * 8)).pairs.prior.tolist() == list(range(8))
    assert PAA(topk=3)(ROW, one_box(), surprised([0.5] * 8)).candidates.prior.tolist() == [0, 1, 2]


@pytest.mark.parametrize("boundary", ["a", "b", "c", "d"])
def test_the_only_candidate_of_a_box_is_positive(boundary):
    small = [0.0, 0.0, 8.0, 8.0]  # 64 of 256 px² of one prior, 32 of 288 of the next
    found = PAA(boundary=boundary, positive=0.2)(ROW, one_box(small), surprised([3.0] * 8))
    assert found.pairs.prior.tolist() == [0]
    assert not found.ignored.any()


def test_a_prior_is_a_candidate_of_the_box_it_overlaps_most():
    targets = Targets.from_lists([[BOX, [0.0, -4.0, 32.0, 12.0]]], [[0, 0]])
    found = PAA()(ROW, targets, surprised(COSTS), explain=True)
    # The half box owns the left half, where its IoU is twice as high; of the next prior both have a part.
    assert found.candidates.gt.tolist() == [0] * 4 + [1] * 4
    assert found.candidates.prior.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    explanation = found.explanation.of(0)
    assert explanation.counts()["lost_to_gt"] == 4
    assert explanation.pairs.prior[explanation.reason == REASONS.index("lost_to_gt")].tolist() == [0, 1, 2, 3]


def test_the_best_prior_of_a_box_that_none_overlaps_enough_is_a_candidate():
    speck = [4.0, 4.0, 5.0, 5.0]  # a pixel in the first two priors, IoU 1 / 256 with either
    assert PAA()(ROW, one_box(speck), surprised([0.5] * 8, speck)).candidates.prior.tolist() == [0, 1]
    # Beside a box that these two priors overlap more they are matched too, but to that box.
    targets = Targets.from_lists([[speck, BOX]], [[0, 0]])
    found = PAA(positive=0.22)(ROW, targets, surprised([0.5] * 8), explain=True)
    assert found.candidates.gt.tolist() == [1] * 7
    assert found.candidates.prior.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert found.stats().starved.tolist() == [0]
    lost = found.explanation.of(0)
    assert lost.counts()["lost_to_gt"] == len(lost) == 2
    assert lost.threshold.isnan().all()


def test_all_classes_count():
    predictions = surprised([0.5] * 8)
    wrong = torch.full((1, 8, 1), -8.0)
    wrong[0, :4] = 4.0  # sure of a class that the box is not
    predictions = replace(predictions, logits=torch.cat([predictions.logits, wrong], 2))
    assert PAA(topk=4)(ROW, one_box(), predictions).candidates.prior.tolist() == [4, 5, 6, 7]


def test_the_proposal_variant_pools_the_anchors_of_a_cell_and_compares_deltas():
    priors = one_level_priors(1, 4, 16, [(16.0, 16.0), (20.0, 16.0), (16.0, 20.0)])
    targets = Targets.from_lists([[[0.0, 0.0, 16.0, 16.0]]], [[0]])
    deltas = torch.zeros(1, 12, 4)
    deltas[0, 1] = torch.tensor([0.0, 0.0, math.log(16 / 20), 0.0])  # right, as those of prior 0
    logits = torch.zeros(1, 12, 1)
    assigner = PAA(class_cost="bce", box_cost="l1", topk=3)
    found = assigner(priors, targets, Predictions(logits=logits, deltas=deltas), explain=True)
    assert found.candidates.prior.tolist() == [0, 1, 2]
    cost = math.log(2) + torch.tensor([0.0, 0.0, math.log(20 / 16)])
    assert_close(-found.explanation.score, cost)
    weighted = PAA(class_cost="bce", box_cost="l1", coder=DeltaCoder((1.0, 1.0, 1.0, 5.0)))
    found = weighted(priors, targets, Predictions(logits=logits, deltas=deltas), explain=True)
    assert_close(-found.explanation.score[:3], math.log(2) + torch.tensor([0.0, 0.0, 5 * math.log(20 / 16)]))


@pytest.mark.parametrize("options", [{}, {"class_cost": "bce", "box_cost": "l1"}, {"inclusive_pixels": True}])
def test_saturated_logits_and_boxes_without_extent_leave_all_finite(options):
    values = torch.tensor([-3e38, -1e4, -100.0, 0.0, 100.0, 1e4, 3e38, 1.0])
    predictions = Predictions(
        logits=torch.stack((values, values.flip(0), values.roll(3)), 1)[None],
        deltas=values[:, None].expand(8, 4)[None],
        boxes=torch.stack((values, values, values.roll(1), values.roll(2)), 1)[None],
    )
    found = PAA(**options)(ROW, one_box(), predictions, explain=True)
    assert len(found.pairs) > 0
    assert torch.isfinite(found.explanation.score).all()
    point = replace(predictions, boxes=torch.full((1, 8, 4), 4.0), logits=torch.zeros(1, 8, 3))
    assert len(PAA(**options)(ROW, one_box(), replace(point, deltas=torch.zeros(1, 8, 4))).pairs) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"topk": 0},
        {"positive": 0.0},
        {"positive": 1.1},
        {"boundary": "e"},
        {"class_cost": "qfl"},
        {"box_cost": "l2"},
        {"alpha": 1.5},
        {"gamma": 0.5},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        PAA(**arguments)


def test_predictions_without_boxes_and_labels_that_are_no_class_are_refused():
    predictions = surprised(COSTS)
    with pytest.raises(ValueError, match="decoded boxes"):
        PAA()(ROW, one_box(), replace(predictions, boxes=None))
    with pytest.raises(ValueError, match="labels below 1"):
        PAA()(ROW, Targets.from_lists([[BOX]], [[1]]), predictions)


def random_predictions(priors: Priors, targets: Targets, classes: int, seed: int) -> Predictions:
    """Boxes near their priors, logits of a network that has begun to learn."""
    generator = torch.Generator().manual_seed(seed)
    shape = (targets.batch_size, len(priors))
    moved = priors.boxes + torch.randn((*shape, 4), generator=generator) * 4
    return Predictions(
        logits=2 * torch.randn((*shape, classes), generator=generator) - 1,
        deltas=torch.randn((*shape, 4), generator=generator) / 2,
        boxes=torch.cat([moved[..., :2], torch.maximum(moved[..., 2:], moved[..., :2] + 1)], -1),
    )


OPTIONS = st.builds(
    Options,
    topk=st.sampled_from([1, 3, 9]),
    positive=st.sampled_from([0.1, 0.3]),
    boundary=st.sampled_from(["a", "b", "c", "d"]),
    class_cost=st.sampled_from(["focal", "bce"]),
    box_cost=st.sampled_from(["giou", "l1"]),
    alpha=st.sampled_from([0.25, 0.6]),
    gamma=st.sampled_from([2.0, 1.5, 0.0]),
    inclusive_pixels=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    options=OPTIONS,
    counts=st.tuples(st.integers(0, 6), st.integers(0, 3)),
    seed=st.integers(0, 10_000),
    free=st.booleans(),
)
def test_it_equals_loops_over_boxes_priors_and_candidates(options, counts, seed, free):
    priors = two_level_priors(48, 64)
    if free:
        priors = Priors.from_boxes(priors.boxes)
    targets = random_batch(counts, seed)
    predictions = random_predictions(priors, targets, 5, seed)
    found = PAA(**asdict(options))(priors, targets, predictions)
    for row, expected in enumerate(paa(priors, targets, predictions, options)):
        if expected.clear:
            image = int(targets.image[row])
            candidates = set(found.candidates.prior[found.candidates.gt == row].tolist())
            assert candidates == expected.candidates
            assert set(found.pairs.prior[found.pairs.gt == row].tolist()) == expected.positive
            ignored = {prior for prior in candidates if found.ignored[image, prior]}
            assert ignored == expected.ignored


def test_the_loops_find_most_boxes_clear():
    priors, options = two_level_priors(48, 64), Options(boundary="b")
    outcomes = []
    for seed in range(5):
        targets = random_batch((6, 3), seed)
        outcomes += paa(priors, targets, random_predictions(priors, targets, 5, seed), options)
    clear = [outcome for outcome in outcomes if outcome.clear]
    assert len(clear) > 0.8 * len(outcomes)
    assert any(len(outcome.positive) > 1 for outcome in clear) and any(outcome.ignored for outcome in clear)


@pytest.mark.parametrize("threads", [1, 3])
def test_costs_do_not_depend_on_where_a_pair_stands(threads, monkeypatch):
    priors, targets = two_level_priors(), random_batch((12, 0, 9, 3))
    predictions = random_predictions(priors, targets, 37, seed=1)
    every = PAA()(priors, targets, predictions, explain=True)
    monkeypatch.setattr(paa_cost, "LOGIT_BUDGET", 100)
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 50)
    torch.set_num_threads(threads)
    try:
        found = PAA()(priors, targets, predictions, explain=True)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(found.explanation.score, every.explanation.score)
    thresholds = found.explanation.threshold, every.explanation.threshold
    assert_close(*thresholds, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.explanation.reason, every.explanation.reason)
    assert torch.equal(found.pairs.prior, every.pairs.prior)
