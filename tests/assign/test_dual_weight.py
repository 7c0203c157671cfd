"""Dual weighting on paper, its options, and against slow loops."""

import math
from dataclasses import replace

import pytest
import torch
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from dual_weight_loops import dual_weights
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import DualWeight
from boxmatch.bench.measure import peak_mebibytes
from boxmatch.priors import PointGrid
from boxmatch.structures import Predictions, Targets

POINTS = one_level_priors(1, 4, 8, [(8, 8)])  # centres x = 4, 12, 20, 28 at y = 4
WIDE = [0.0, 0.0, 32.0, 8.0]
HALF = [0.0, 0.0, 16.0, 8.0]
MOST = [0.0, 0.0, 24.0, 8.0]


def predicted(boxes: list[list[float]], probability: float = 0.5, classes: int = 1) -> Predictions:
    """One image; every prior is as sure of every class."""
    logits = torch.full((1, len(boxes), classes), math.log(probability / (1 - probability)))
    return Predictions(logits=logits, deltas=torch.zeros(1, len(boxes), 4), boxes=torch.tensor([boxes]))


def one_box(box: list[float]) -> Targets:
    """One image, one class."""
    return Targets.from_lists([[box]], [[0]])


def test_every_prior_inside_learns_the_box_by_its_joint_score_and_its_place():
    assignment = DualWeight()(POINTS, one_box(WIDE), predicted([HALF, WIDE, WIDE, MOST]))
    assert assignment.pairs.prior.tolist() == [0, 1, 2, 3]
    # HALF and MOST lie in WIDE, so that their GIoU is their IoU.
    joint = [0.5 * math.exp(-5 * (1 - overlap)) for overlap in (0.5, 1, 1, 0.75)]
    # 12, 4, 4 and 12 px from the centre, in cells of 8 px.
    prior = [math.exp(-(cells**2) / (2 * 1.11**2)) for cells in (1.5, 0.5, 0.5, 1.5)]
    total = sum(math.exp(3 * t) * t * q for t, q in zip(joint, prior))
    expected = [math.exp(5 * t) * t * q / total for t, q in zip(joint, prior)]
    assert assignment.weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert assignment.score.tolist() == [1, 1, 1, 1]
    # The best have 0, the worst 1; 0.75 lies between in squares.
    assert assignment.neg_weight.tolist() == pytest.approx([1, 0, 0, (1 - 0.75**2) / 0.75], abs=1e-6)


def test_the_curve_of_the_paper_does_not_look_at_the_other_priors():
    assignment = DualWeight.paper()(POINTS, one_box(WIDE), predicted([HALF, MOST, WIDE, [0, 0, 8, 8]]))
    fixed = (0.95**2 - 0.75**2) / (0.95**2 - 0.5**2)
    assert assignment.neg_weight.tolist() == pytest.approx([1, fixed, 0, 1])
    joint = [0.5 * overlap**5 for overlap in (0.5, 0.75, 1, 0.25)]
    prior = [math.exp(-(cells**2) / (2 * 1.11**2)) for cells in (1.5, 0.5, 0.5, 1.5)]
    gain = [math.exp(5 * t) * t * q for t, q in zip(joint, prior)]
    assert assignment.weight.tolist() == pytest.approx([one / sum(gain) for one in gain], rel=1e-5)


def test_a_box_with_one_prior_does_not_push_it_down_but_the_official_code_does():
    small, near = one_box([2.0, 2.0, 7.0, 7.0]), predicted([[2.0, 2.0, 7.0, 6.5], WIDE, WIDE, WIDE])
    ours, official = DualWeight()(POINTS, small, near), DualWeight.official()(POINTS, small, near)
    assert ours.pairs.prior.tolist() == official.pairs.prior.tolist() == [0]
    assert ours.neg_weight.tolist() == [0]
    assert official.neg_weight.tolist() == [1]
    # exp(5 t) / exp(3 t) remains of a sum of one.
    joint = 0.5 * math.exp(-5 * 0.1)
    assert ours.weight.tolist() == pytest.approx([math.exp(2 * joint)])


def test_a_bag_below_the_threshold_is_background_in_full():
    assignment = DualWeight()(POINTS, one_box(WIDE), predicted([[0.0, 0.0, 8.0, 8.0]] * 4))
    assert assignment.neg_weight.tolist() == [1, 1, 1, 1]
    assert (assignment.weight > 0).all()


@pytest.mark.parametrize(("rule", "value"), [("min", 0.0), ("max", 1.0), ("last", 1.0)])
def test_boxes_of_one_class_that_share_a_prior_give_it_one_negative_weight(rule, value):
    # Prior 1 is the best of MOST, and only just above the threshold for WIDE, which comes last.
    targets = Targets.from_lists([[MOST, WIDE]], [[0, 0]])
    predictions = predicted([HALF, MOST, MOST, WIDE])
    assignment = DualWeight(neg_conflict=rule, iou_low=0.75)(POINTS, targets, predictions)
    shared = assignment.neg_weight[assignment.pairs.prior == 1].tolist()
    assert shared == [pytest.approx(value)] * 2
    backwards = Targets.from_lists([[WIDE, MOST]], [[0, 0]])
    turned = DualWeight(neg_conflict=rule, iou_low=0.75)(POINTS, backwards, predictions)
    other = 0.0 if rule == "last" else value
    assert turned.neg_weight[turned.pairs.prior == 1].tolist() == [pytest.approx(other)] * 2


def test_boxes_of_different_classes_never_conflict():
    targets = Targets.from_lists([[MOST, WIDE]], [[0, 1]])
    predictions = predicted([HALF, MOST, MOST, WIDE], classes=2)
    assignment = DualWeight(iou_low=0.75)(POINTS, targets, predictions)
    assert assignment.neg_weight[assignment.pairs.prior == 1].tolist() == pytest.approx([0, 1])


def test_boxes_of_one_class_in_two_images_never_conflict():
    targets = Targets.from_lists([[WIDE], [WIDE]], [[0], [0]])
    one, two = predicted([WIDE, MOST, WIDE, WIDE]), predicted([HALF, WIDE, WIDE, WIDE])
    both = Predictions(
        one.logits.repeat(2, 1, 1), one.deltas.repeat(2, 1, 1), torch.cat((one.boxes, two.boxes))
    )
    assignment = DualWeight()(POINTS, targets, both)
    assert assignment.neg_weight.tolist() == pytest.approx([0, 1, 0, 0, 1, 0, 0, 0])


def test_the_hard_bag_reaches_less_than_two_cells():
    line = one_level_priors(1, 8, 8, [(8, 8)])
    box = [0.0, 0.0, 64.0, 8.0]
    assignment = DualWeight(bag="hard_center")(line, one_box(box), predicted([box] * 8))
    # 1.5 cells from the centre is inside a radius of 1.72, 2.5 is not; all inside still have a negative one.
    assert (assignment.weight > 0).tolist() == [False, False, True, True, True, True, False, False]
    assert assignment.weight[2] == assignment.weight[3]
    assert assignment.neg_weight.tolist() == [0] * 8


def test_of_equally_central_priors_the_top_k_takes_the_first():
    line = one_level_priors(1, 8, 8, [(8, 8)])
    box = [0.0, 0.0, 64.0, 8.0]
    for kind, equal in (("prior", False), ("one", True)):
        rule = DualWeight(bag="topk", topk=3, topk_weight=kind)
        weight = rule(line, one_box(box), predicted([box] * 8)).weight
        assert weight.nonzero().squeeze(1).tolist() == [2, 3, 4]  # 3 and 4 are nearest, then 2 before 5
        assert bool(weight[2] == weight[3]) == equal


def test_an_explanation_names_every_prior_inside_and_its_positive_weight():
    assignment = DualWeight()(POINTS, one_box(HALF), predicted([HALF, WIDE, WIDE, MOST]), explain=True)
    told = assignment.explanation
    assert told.pairs.prior.tolist() == [0, 1]
    assert torch.equal(told.score, assignment.weight)
    assert told.counts()["kept"] == 2


def test_an_ignore_region_takes_background_out_and_leaves_pairs_alone():
    targets = Targets.from_lists([[HALF, [16.0, 0.0, 24.0, 8.0]]], [[0, 0]], [[False, True]])
    assignment = DualWeight()(POINTS, targets, predicted([WIDE] * 4))
    assert assignment.pairs.gt.tolist() == [0, 0]
    assert assignment.ignored.tolist() == [[False, False, True, False]]


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="labels below 1"):
        DualWeight()(POINTS, Targets.from_lists([[WIDE]], [[1]]), predicted([WIDE] * 4))


def test_predictions_without_boxes_are_refused():
    predictions = Predictions(logits=torch.zeros(1, 4, 1), deltas=torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        DualWeight()(POINTS, one_box(WIDE), predictions)


@pytest.mark.parametrize(
    "arguments",
    [
        {"beta": -1.0},
        {"mu_num": -0.1},
        {"mu_den": 81.0},
        {"sigma": 0.0},
        {"topk": 0},
        {"iou_low": 0.0},
        {"iou_low": 0.95},
        {"iou_high": 1.5},
        {"neg_exponent": 0.0},
        {"loc_score": "diou"},
        {"bag": "all"},
        {"topk_weight": "two"},
        {"neg_curve": "flat"},
        {"neg_conflict": "mean"},
        {"degenerate_bag": "one"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match="xpected"):
        DualWeight(**arguments)


def test_presets_take_options_on_top():
    assert DualWeight.official(neg_conflict="min").neg_conflict == "min"
    assert DualWeight.paper(mu_den=3.0).mu_den == 3
    assert "degenerate_bag='official'" in repr(DualWeight.official())


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "beta": st.sampled_from([0.0, 1.0, 2.5]),
        "mu_num": st.sampled_from([0.0, 3.0]),
        "mu_den": st.sampled_from([0.0, 5.0]),
        "loc_score": st.just("iou"),
        "bag": st.sampled_from(["hard_center", "topk"]),
        "sigma": st.sampled_from([0.5, 3.0]),
        "topk": st.integers(1, 4),
        "topk_weight": st.just("one"),
        "neg_curve": st.just("fixed"),
        "iou_low": st.sampled_from([0.25, 0.75]),
        "iou_high": st.sampled_from([0.8, 1.0]),
        "neg_exponent": st.sampled_from([1.0, 1.7, 3.0]),
        "neg_conflict": st.sampled_from(["max", "last"]),
        "degenerate_bag": st.just("official"),
    },
)


@given(grid=grids(), images=batches(), seed=st.integers(0, 999), options=OPTIONS, with_quality=st.booleans())
@settings(max_examples=80, deadline=None)
def test_it_equals_the_loops(grid, images, seed, options, with_quality):
    priors, targets = make_priors(grid), make_targets(images, classes=2)
    predictions = make_predictions(priors, targets, seed)
    random = torch.Generator().manual_seed(seed)
    predictions = replace(
        predictions,
        logits=2 * torch.randn(predictions.logits.shape, generator=random),
        quality=torch.randn(predictions.logits.shape[:2], generator=random) if with_quality else None,
    )
    assignment = DualWeight(**options)(priors, targets, predictions)
    expected = dual_weights(priors, targets, predictions, **options)
    pairs = list(zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()))
    assert pairs == sorted(expected)
    for pair, weight, negative in zip(pairs, assignment.weight.tolist(), assignment.neg_weight.tolist()):
        wanted = expected[pair]
        assert weight == pytest.approx(wanted.positive, rel=1e-4, abs=1e-7)
        assert 0 <= negative <= 1 + 1e-6
        if not wanted.doubtful:
            assert negative == pytest.approx(wanted.negative, abs=2e-3)


def test_the_order_of_the_boxes_does_not_matter_by_default():
    priors, targets = two_level_priors(), random_batch((12, 0, 9))
    targets = replace(targets, labels=targets.labels % 2)
    predictions = make_predictions(priors, targets, seed=1)
    order = torch.cat((torch.arange(11, -1, -1), torch.arange(20, 11, -1)))
    straight, turned = (DualWeight()(priors, part, predictions) for part in (targets, targets.select(order)))
    rows = (order[turned.pairs.gt] * len(priors) + turned.pairs.prior).argsort()
    assert torch.equal(straight.neg_weight, turned.neg_weight[rows])
    torch.testing.assert_close(straight.weight, turned.weight[rows])
    assert len(straight.neg_weight.unique()) > 2


def test_a_box_of_32_px_costs_less_than_a_megabyte():
    priors = PointGrid((8, 16, 32, 64, 128))([(-(-320 // s), -(-512 // s)) for s in (8, 16, 32, 64, 128)])
    random = torch.Generator().manual_seed(0)

    def peak(count: int) -> float:
        corner = torch.rand((count, 2), generator=random) * torch.tensor([480.0, 288.0])
        targets = Targets.from_lists([torch.cat((corner, corner + 32), 1)], [torch.zeros(count).long()])
        predictions = replace(make_predictions(priors, targets, seed=0), quality=torch.zeros(1, len(priors)))
        return peak_mebibytes(lambda: DualWeight()(priors, targets, predictions), torch.device("cpu"))

    assert (peak(600) - peak(100)) / 500 < 0.01  # a hundredth, in truth: some twenty pairs of 200 bytes
