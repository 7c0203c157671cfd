"""Every query against a loop over all boxes and priors: random grids, boxes in all the wrong places."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torchvision.ops import box_iou

from boxmatch.priors import AnchorGrid, PointGrid, Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Pairs, Targets

sides = st.one_of(st.sampled_from([0.5, 8.0, 32.0, 10_000.0]), st.floats(0.5, 300, width=32))
# Half steps of 4 px lie on centres, on borders between cells and half-way between centres: where ties are.
places = st.one_of(st.integers(-20, 60).map(lambda step: 4.0 * step), st.floats(-300, 600, width=32))
# Up to two boxes (x, y, width, height) of each of two images, the first one perhaps twice.
boxes = st.tuples(st.lists(st.tuples(places, places, sides, sides), max_size=2), st.booleans())
batches = st.lists(boxes, min_size=2, max_size=2)
# Stride, height, width, anchors of one to three levels from 1 × 1 to 7 × 7 cells.
levels = st.tuples(
    st.sampled_from([1, 8, 12, 16, 64]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
)
grids = st.lists(levels, min_size=1, max_size=3)
THRESHOLDS = [0, 0.02, 0.3, 0.5, 0.75, 1]


def make_priors(grid: list) -> Priors:
    strides, heights, widths, anchors = zip(*grid)
    return AnchorGrid(anchors, strides)(list(zip(heights, widths)))


def make_targets(batch: list) -> Targets:
    images = [rows + rows[:1] if twice else rows for rows, twice in batch]
    lists = [[[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in rows] for rows in images]
    return Targets.from_lists(lists, [[0] * len(rows) for rows in lists])


def as_list(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.gt.tolist(), pairs.prior.tolist()))


def where(mask: torch.Tensor) -> list[tuple[int, int]]:
    return [(gt, prior) for gt, prior in mask.nonzero().tolist()]


def off_grid(priors: Priors) -> Priors:
    """The same priors with nothing known of their grid."""
    return Priors(priors.boxes, priors.centers, priors.level, priors.stride, (), priors.wh)


def all_pairs(priors: Priors, targets: Targets) -> list[tuple[int, int]]:
    return [(gt, prior) for gt in range(len(targets)) for prior in range(len(priors))]


def middle(box: torch.Tensor) -> tuple[float, float]:
    """Centre of a box as float32 has it."""
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    return x, y


@settings(max_examples=60)
@given(grids, batches)
def test_inside_lists_the_priors_whose_centre_is_in_the_box(grid, batch):
    priors, targets = make_priors(grid), make_targets(batch)
    centers, boxes = priors.centers.tolist(), targets.boxes.tolist()
    expected = [
        (gt, prior)
        for gt, prior in all_pairs(priors, targets)
        if boxes[gt][0] < centers[prior][0] < boxes[gt][2] and boxes[gt][1] < centers[prior][1] < boxes[gt][3]
    ]
    assert as_list(priors.inside(targets)) == expected
    assert as_list(off_grid(priors).inside(targets)) == expected


@settings(max_examples=60)
@given(grids, batches, st.sampled_from([0.5, 1, 1.5, 2.5]))
def test_within_lists_the_priors_around_the_centre(grid, batch, radius):
    priors, targets = make_priors(grid), make_targets(batch)
    expected = []
    for gt, prior in all_pairs(priors, targets):
        center = (targets.boxes[gt, :2] + targets.boxes[gt, 2:]) / 2
        half = radius * priors.stride[prior]
        # The borders of the square are float32, as everywhere.
        low, high = center - half, center + half
        if bool(((low < priors.centers[prior]) & (priors.centers[prior] < high)).all()):
            expected.append((gt, prior))
    assert as_list(priors.within(targets, radius)) == expected
    assert as_list(off_grid(priors).within(targets, radius)) == expected


@settings(max_examples=60)
@given(grids, batches, st.integers(0, 2))
def test_cells_list_the_clipped_block_around_the_cell_of_the_centre(grid, batch, reach):
    priors, targets = make_priors(grid), make_targets(batch)
    expected = []
    for gt in range(len(targets)):
        x, y = middle(targets.boxes[gt])
        prior = 0
        for level in priors.levels:
            column = min(max(math.floor(x / level.stride), 0), level.width - 1)
            row = min(max(math.floor(y / level.stride), 0), level.height - 1)
            for place in range(len(level)):
                cell = place // level.anchors
                near = abs(cell // level.width - row) <= reach and abs(cell % level.width - column) <= reach
                if near:
                    expected.append((gt, prior + place))
            prior += len(level)
    assert as_list(priors.cells(targets, reach)) == expected


def nearest_of_level(priors: Priors, box: torch.Tensor, first: int, size: int, k: int) -> list[int]:
    """The k nearest of the priors first .. first + size - 1, in exact arithmetic, in ascending order."""
    x, y = middle(box)
    # Hypotenuses of exact differences: 2^-52 relative, far below what float32 centres can differ by.
    distance = [
        (prior_x - x) ** 2 + (prior_y - y) ** 2
        for prior_x, prior_y in priors.centers[first : first + size].tolist()
    ]
    order = sorted(range(size), key=lambda place: (distance[place], place))
    return sorted(first + place for place in order[:k])


@settings(max_examples=60)
@given(grids, batches, st.sampled_from([1, 2, 3, 5, 9, 20, 500]))
def test_nearest_lists_the_k_of_each_level_and_of_equal_ones_the_lowest(grid, batch, k):
    priors, targets = make_priors(grid), make_targets(batch)
    expected, expected_off_grid = [], []
    for gt, box in enumerate(targets.boxes):
        first = 0
        for level in priors.levels:
            expected += [(gt, prior) for prior in nearest_of_level(priors, box, first, len(level), k)]
            first += len(level)
        expected_off_grid += [(gt, prior) for prior in nearest_of_level(priors, box, 0, len(priors), k)]
    assert as_list(priors.nearest(targets, k)) == expected
    assert as_list(off_grid(priors).nearest(targets, k)) == expected_off_grid


@settings(max_examples=60)
@given(grids, batches, st.sampled_from(THRESHOLDS), st.booleans())
def test_overlapping_lists_the_priors_with_the_iou_and_the_iou(grid, batch, min_iou, strict):
    priors, targets = make_priors(grid), make_targets(batch)
    iou = box_iou(targets.boxes, priors.boxes)
    keep = iou > min_iou if strict or min_iou == 0 else iou >= min_iou
    for place in (priors, off_grid(priors)):
        pairs, value = place.overlaps(targets, min_iou, strict=strict)
        assert as_list(pairs) == where(keep)
        assert torch.equal(value, iou[keep])
        assert as_list(place.overlapping(targets, min_iou, strict=strict)) == as_list(pairs)


@pytest.mark.parametrize("place", [0.25, 4_000.5, 9_999.75])
def test_overlaps_of_half_a_pixel_and_of_ten_thousand_are_found_far_from_the_origin(place):
    square = AnchorGrid([[(0.5, 0.5), (0.7, 30.0)], [(9_999.0, 500.0)]], (4, 2048))([(3, 2500), (5, 5)])
    row = AnchorGrid([[(0.5, 0.5), (3.0, 0.7)]], (1,))([(1, 10_000)])
    sides = [0.5, 0.61, 3.0, 400.0, 10_000.0]
    of_all_shapes = make_targets([([(place, place, w, h) for w in sides for h in sides], False)])
    on_the_row = make_targets([([(place - 0.05, 0.45, 0.7, 0.7)], False)])
    for priors, targets in ((square, of_all_shapes), (row, on_the_row)):
        iou = box_iou(targets.boxes, priors.boxes)
        for min_iou in (0.001, 0.3, 0.9):
            assert as_list(priors.overlapping(targets, min_iou)) == where(iou >= min_iou)


def random_batch(count: int, seed: int) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    center = 300 * torch.rand((count, 2), generator=generator) - 20
    side = 2 * 150 ** torch.rand((count, 2), generator=generator)
    boxes = torch.cat((center - side / 2, center + side / 2), dim=1)
    return Targets.from_lists(
        [boxes[: count // 2], [], boxes[count // 2 :]], [[0] * (count // 2), [], [0] * (count - count // 2)]
    )


@pytest.mark.parametrize("size", [0.3, 7.7, 123.4])
def test_a_pair_is_found_when_its_own_iou_is_asked_for(size):
    """The bounds are computed otherwise than the IoU and must not cut off what rounding lets pass."""
    priors = AnchorGrid([[(size, 2.2 * size)]], (12,))([(1, 800)])
    generator = torch.Generator().manual_seed(1)
    for place in torch.randint(0, 800, (60,), generator=generator).tolist():
        # Moved along one axis only, the pair lies on the very border of what is listed.
        x, y = priors.centers[place].tolist()
        shift = size * torch.rand(1, generator=generator).item()
        for dx, dy in ((shift, 0), (0, shift)):
            targets = make_targets([([(x + dx, y + dy, 1.3 * size, 1.1 * size)], False)])
            min_iou = box_iou(targets.boxes, priors.boxes)[0, place].item()
            assert (0, place) in as_list(priors.overlapping(targets, min_iou))


ANCHORS = [[(10, 13), (16, 30), (33, 23)], [(64, 64)], [(300, 150), (150, 300)]]
QUERIES = {
    "cells": lambda priors, targets: (priors.cells(targets, 1),),
    "inside": lambda priors, targets: (priors.inside(targets),),
    "within": lambda priors, targets: (priors.within(targets, 2.5),),
    "nearest": lambda priors, targets: (priors.nearest(targets, 9),),
    "overlaps": lambda priors, targets: priors.overlaps(targets, 0.1),
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("budget", [1, 100, 5000])
def test_pieces_change_nothing(name, budget, monkeypatch):
    priors = AnchorGrid(ANCHORS, (8, 16, 32))([(30, 40), (15, 20), (8, 10)])
    targets = random_batch(40, seed=3)
    for place in (priors,) if name == "cells" else (priors, off_grid(priors)):
        monkeypatch.setattr(pieces, "PAIR_BUDGET", 2**40)
        whole = QUERIES[name](place, targets)
        monkeypatch.setattr(pieces, "PAIR_BUDGET", budget)
        cut = QUERIES[name](place, targets)
        assert as_list(cut[0]) == as_list(whole[0])
        assert all(torch.equal(part, other) for part, other in zip(cut[1:], whole[1:]))


@pytest.mark.parametrize("name", QUERIES)
def test_a_batch_without_boxes_has_no_pairs(name):
    priors = AnchorGrid(ANCHORS, (8, 16, 32))([(3, 4), (2, 2), (1, 1)])
    targets = Targets.from_lists([[], []], [[], []])
    for place in (priors,) if name == "cells" else (priors, off_grid(priors)):
        pairs, *iou = QUERIES[name](place, targets)
        assert pairs.gt.dtype == pairs.prior.dtype == torch.int64
        assert [len(pairs), *map(len, iou)] == [0] * (1 + len(iou))


@pytest.mark.parametrize("name", ["inside", "within", "nearest", "overlaps"])
def test_no_priors_have_no_pairs(name):
    assert len(QUERIES[name](Priors.from_boxes(torch.zeros(0, 4)), random_batch(8, seed=0))[0]) == 0


@pytest.mark.parametrize("name", QUERIES)
def test_memory_does_not_grow_with_boxes_times_priors(name):
    """2000 small boxes on 1.3 million priors: a matrix would have 2.7 billion entries."""
    priors = PointGrid((1, 2), size=4)([(1024, 1024), (512, 512)])
    center = torch.rand((2000, 2), generator=torch.Generator().manual_seed(5)) * 1024
    boxes = torch.cat((center - 2, center + 2), dim=1)
    pairs = QUERIES[name](priors, Targets.from_lists([boxes], [[0] * 2000]))[0]
    assert 2000 <= len(pairs) <= 2000 * 200
    # Boxes come in order, and of one box no prior comes twice.
    key = pairs.gt * len(priors) + pairs.prior
    assert bool((key[1:] > key[:-1]).all())


@pytest.mark.parametrize("name", QUERIES)
def test_everything_stays_on_the_device_of_the_boxes(name):
    """Were a tensor made on the default device, it could not be mixed with these, which lie elsewhere."""
    priors = AnchorGrid(ANCHORS, (8, 16, 32))([(30, 40), (15, 20), (8, 10)])
    targets = random_batch(40, seed=3)
    places = (priors,) if name == "cells" else (priors, off_grid(priors))
    expected = [QUERIES[name](place, targets) for place in places]
    with torch.device("meta"):
        results = [QUERIES[name](place, targets) for place in places]
    assert [as_list(result[0]) for result in results] == [as_list(result[0]) for result in expected]
