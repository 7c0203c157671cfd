"""The region of FCOS on paper, against an obvious loop, and against torchvision's FCOS."""

import types
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from every_assigner import random_boxes
from fcos_region_loops import fates, owners
from hypothesis import given, settings
from torchvision.models.detection import FCOS

from boxmatch.assign import FCOSRegion
from boxmatch.priors import AnchorGrid, PointGrid, Priors
from boxmatch.structures import REASONS, Targets

POINTS = PointGrid((8,))([(1, 5)])  # centres x = 4, 12, 20, 28, 36 at y = 4
WIDE = [0.0, 0.0, 40.0, 8.0]

# Quarters of a pixel, their halves and the squares of them are exact in both precisions.
quarters = st.integers(-40, 240).map(lambda n: n / 4)
sides = st.one_of(st.integers(1, 40), st.integers(40, 600)).map(lambda n: n / 4)
images = st.lists(st.tuples(quarters, quarters, sides, sides), max_size=4)
batches = st.lists(images, min_size=1, max_size=3)
grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3)


def make_targets(batch: list) -> Targets:
    """Boxes from corner and sides; the first of an image comes twice."""
    lists = [[[x, y, x + w, y + h] for x, y, w, h in [*rows, *rows[:1]]] for rows in batch]
    return Targets.from_lists(lists, [[0] * len(rows) for rows in lists])


def make_priors(sizes: list, anchors: int = 1) -> Priors:
    """Strides 8, 16, 32 as far as there are levels."""
    strides = (8, 16, 32)[: len(sizes)]
    return AnchorGrid([[(8, 8)] * anchors] * len(sizes), strides)(sizes)


def test_points_near_the_centre_of_the_box_learn_it():
    assignment = FCOSRegion()(POINTS, Targets.from_lists([[WIDE]], [[0]]))
    # The region reaches 12 px from x = 20 to both sides: 8 to 32.
    assert assignment.gt_index().tolist() == [[-1, 0, 0, 0, -1]]


def test_without_centre_sampling_all_points_inside_learn_it():
    assignment = FCOSRegion(center_sampling=None)(POINTS, Targets.from_lists([[WIDE]], [[0]]))
    assert assignment.gt_index().tolist() == [[0, 0, 0, 0, 0]]


def test_the_smaller_box_owns_the_point():
    targets = Targets.from_lists([[WIDE, [8.0, 0.0, 24.0, 8.0], [8.0, 0.0, 24.0, 8.0]]], [[0, 1, 2]])
    assignment = FCOSRegion(center_sampling=None)(POINTS, targets)
    assert assignment.gt_index().tolist() == [[0, 1, 1, 0, 0]]
    assert assignment.stats().contested == 2


def test_a_distance_on_the_border_of_two_ranges_is_positive_on_both_levels():
    priors = PointGrid((8, 16))([(1, 2), (1, 1)])  # centres (4, 4), (12, 4) and (8, 8)
    box = [0.0, 0.0, 16.0, 16.0]  # the greatest distances are 12, 12 and 8
    on_both = FCOSRegion(ranges=[(8, 12), (0, 8)])(priors, Targets.from_lists([[box]], [[0]]))
    assert on_both.pairs.prior.tolist() == [0, 1, 2]
    on_none = FCOSRegion(ranges=[(8, 11), (8.5, 12)])(priors, Targets.from_lists([[box]], [[0]]))
    assert len(on_none.pairs) == 0


def test_ranges_follow_from_the_strides():
    rule = FCOSRegion()
    paper = [[0.0, 64.0], [64.0, 128.0], [128.0, 256.0], [256.0, 512.0], [512.0, torch.inf]]
    five = PointGrid((8, 16, 32, 64, 128))([(1, 1)] * 5)
    assert rule._ranges_of(five).tolist() == paper
    assert rule._ranges_of(PointGrid((4,))([(1, 1)])).tolist() == [[0.0, torch.inf]]
    assert rule._ranges_of(PointGrid((4, 8))([(1, 1)] * 2)).tolist() == [[0.0, 32.0], [32.0, torch.inf]]


def test_a_box_between_the_points_learns_nothing():
    assignment = FCOSRegion()(POINTS, Targets.from_lists([[[5.0, 1.0, 11.0, 7.0]]], [[0]]))
    assert assignment.stats().starved.tolist() == [0]


def test_arguments_and_priors_that_do_not_fit_are_refused():
    for wrong in ({"center_sampling": 0.0}, {"center_sampling": -1.0}, {"ranges": []}, {"ranges": [(8, 8)]}):
        with pytest.raises(ValueError, match="expected"):
            FCOSRegion(**wrong)
    targets = Targets.from_lists([[WIDE]], [[0]])
    with pytest.raises(ValueError, match="expected priors on 2 levels, one per range, got 1 levels"):
        FCOSRegion(ranges=[(0, 64), (64, 128)])(POINTS, targets)
    with pytest.raises(ValueError, match="expected priors on a grid"):
        FCOSRegion()(Priors.from_boxes(POINTS.boxes), targets)


@given(
    sizes=grids,
    batch=batches,
    anchors=st.sampled_from([1, 2]),
    radius=st.sampled_from([None, 0.5, 1.5, 2.5]),
    ends=st.sampled_from([None, 16.0, 20.25]),
)
@settings(max_examples=40, deadline=None)
def test_owners_and_reasons_are_those_of_the_loop(
    sizes: list, batch: list, anchors: int, radius: float | None, ends: float | None
) -> None:
    priors, targets = make_priors(sizes, anchors), make_targets(batch)
    count = len(sizes)
    borders = [0.0, *[ends * 2**level if ends else 64.0 * 2**level for level in range(count - 1)], torch.inf]
    ranges = list(pairwise(borders))
    rule = FCOSRegion(center_sampling=radius, ranges=ranges if ends else None)
    fate = fates(priors, targets, radius, ranges)
    index = rule(priors, targets).gt_index()
    assert index.tolist() == owners(priors, targets, fate)
    told = rule(priors, targets, explain=True)
    assert torch.equal(told.gt_index(), index)
    explanation = told.explanation
    assert explanation is not None
    kept = set(zip(told.pairs.gt.tolist(), told.pairs.prior.tolist()))
    expected = {
        pair: "kept" if pair in kept else "lost_to_gt" if verdict == "candidate" else verdict
        for pair, verdict in fate.items()
    }
    pairs = zip(explanation.pairs.gt.tolist(), explanation.pairs.prior.tolist())
    assert dict(zip(pairs, (REASONS[reason] for reason in explanation.reason.tolist()))) == expected


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_rule_of_torchvision_off_the_borders(seed):
    strides, sizes = (8, 16, 32, 64, 128), [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    priors = PointGrid(strides)(sizes)
    boxes = 4 * random_boxes(40, seed, height=64, width=96)  # of 8 to 320 px
    # A stand-in for the model: its method needs the radius and hands the indices to the head.
    model = types.SimpleNamespace(
        center_sampling_radius=1.5, head=types.SimpleNamespace(compute_loss=lambda *args: args[3])
    )
    counts = [height * width for height, width in sizes]
    (expected,) = FCOS.compute_loss(model, [{"boxes": boxes}], None, [priors.boxes], counts)
    found = FCOSRegion()(priors, Targets.from_lists([boxes], [torch.zeros(40)])).gt_index()[0]
    assert torch.equal(found, expected)
    assert int((found >= 0).sum()) > 100
