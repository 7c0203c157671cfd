"""The best priors of each box, and thresholds per box, against the exhaustive comparison."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torchvision.ops import box_iou

from boxmatch.boxes import area
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Pairs, Targets

sides = st.one_of(st.sampled_from([0.5, 8.0, 32.0, 2_000.0]), st.floats(0.5, 300, width=32))
# Half steps of 4 px lie half-way between centres and on them: where several priors are equally good.
places = st.one_of(st.integers(-20, 60).map(lambda step: 4.0 * step), st.floats(-300, 600, width=32))
images = st.lists(st.lists(st.tuples(places, places, sides, sides), max_size=3), min_size=1, max_size=2)
levels = st.tuples(
    st.sampled_from([1, 8, 12, 64]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
)
grids = st.lists(levels, min_size=1, max_size=3)


def make_priors(grid: list) -> Priors:
    strides, heights, widths, anchors = zip(*grid)
    return AnchorGrid(anchors, strides)(list(zip(heights, widths)))


def make_targets(batch: list) -> Targets:
    lists = [[[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in rows] for rows in batch]
    return Targets.from_lists(lists, [[0] * len(rows) for rows in lists])


def off_grid(priors: Priors) -> Priors:
    """The same priors with nothing known of their grid."""
    return Priors.from_boxes(priors.boxes)


def as_list(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.gt.tolist(), pairs.prior.tolist()))


def listed(mask: torch.Tensor) -> list[tuple[int, int]]:
    return [(gt, prior) for gt, prior in mask.nonzero().tolist()]


@settings(max_examples=50, deadline=None)
@given(grids, images)
def test_best_overlaps_are_all_priors_of_the_greatest_iou(grid, batch):
    priors, targets = make_priors(grid), make_targets(batch)
    iou = box_iou(targets.boxes, priors.boxes)
    best = (iou == iou.amax(1, keepdim=True)) & (iou > 0)
    for place in (priors, off_grid(priors)):
        pairs, value = place.best_overlaps(targets)
        assert as_list(pairs) == listed(best)
        assert torch.equal(value, iou[best])


@settings(max_examples=50, deadline=None)
@given(grids, images, st.data())
def test_each_box_may_have_a_threshold_of_its_own(grid, batch, data):
    priors, targets = make_priors(grid), make_targets(batch)
    count = len(targets)
    low = st.sampled_from([0.0, 0.02, 0.3, 0.5, 1.0])
    min_iou = torch.tensor(data.draw(st.lists(low, min_size=count, max_size=count)))
    strict = data.draw(st.booleans())
    iou = box_iou(targets.boxes, priors.boxes)
    keep = (iou > min_iou[:, None]) if strict else (iou >= min_iou[:, None]) & (iou > 0)
    for place in (priors, off_grid(priors)):
        pairs, value = place.overlaps(targets, min_iou, strict=strict)
        assert as_list(pairs) == listed(keep)
        assert torch.equal(value, iou[keep])


def test_a_box_between_four_cells_is_best_met_by_all_four():
    priors = AnchorGrid([[(8, 8)]], (8,))([(3, 3)])
    between = Targets.from_lists([[[4.0, 4.0, 12.0, 12.0], [90.0, 90.0, 95.0, 95.0]]], [[0, 0]])
    pairs, iou = priors.best_overlaps(between)
    assert as_list(pairs) == [(0, 0), (0, 1), (0, 3), (0, 4)]
    assert iou.tolist() == pytest.approx([1 / 7] * 4)


def many(count: int = 60) -> tuple[Priors, Targets]:
    generator = torch.Generator().manual_seed(7)
    center = 300 * torch.rand((count, 2), generator=generator) - 20
    side = 2 * 150 ** torch.rand((count, 2), generator=generator)
    boxes = torch.cat((center - side / 2, center + side / 2), dim=1)
    anchors = [[(10, 13), (16, 30), (33, 23)], [(64, 64)], [(300, 150), (150, 300)]]
    priors = AnchorGrid(anchors, (8, 16, 32))([(30, 40), (15, 20), (8, 10)])
    return priors, Targets.from_lists([boxes[:20], [], boxes[20:]], [[0] * 20, [], [0] * (count - 20)])


@pytest.mark.parametrize("budget", [1, 100, 5000])
def test_pieces_change_nothing(budget, monkeypatch):
    priors, targets = many()
    thresholds = torch.linspace(0, 0.5, len(targets))
    for place in (priors, off_grid(priors)):
        whole = *place.best_overlaps(targets), *place.overlaps(targets, thresholds)
        monkeypatch.setattr(pieces, "PAIR_BUDGET", budget)
        cut = *place.best_overlaps(targets), *place.overlaps(targets, thresholds)
        monkeypatch.undo()
        assert as_list(cut[0]) == as_list(whole[0]) and as_list(cut[2]) == as_list(whole[2])
        assert torch.equal(cut[1], whole[1]) and torch.equal(cut[3], whole[3])


def test_no_boxes_and_no_priors_have_no_best_overlap():
    priors, targets = many()
    nobody = Targets.from_lists([[], []], [[], []])
    for place in (priors, off_grid(priors)):
        assert len(place.best_overlaps(nobody)[0]) == 0
        assert len(place.overlaps(nobody, torch.zeros(0))[0]) == 0
    assert len(Priors.from_boxes(torch.zeros(0, 4)).best_overlaps(targets)[0]) == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_thresholds_out_of_range_are_refused(wrong):
    priors, targets = many()
    thresholds = torch.full((len(targets),), 0.5)
    thresholds[3] = wrong
    with pytest.raises(ValueError, match=r"min_iou in \[0, 1\]"):
        priors.overlaps(targets, thresholds)


def test_the_tables_of_a_grid_hold_every_corner_and_area():
    """Overlaps in y are taken once per row, from any of its cells."""
    anchors = [[(10, 13), (16.3, 30), (33, 23)], [(64, 64.7)]]
    priors = AnchorGrid(anchors, (7, 16), center=0.3, shift=0.1)([(5, 9), (4, 3)])
    index = priors.index
    for level, (start, cell) in enumerate(zip(index.start.tolist(), index.cell.tolist())):
        grid = priors.levels[level]
        for place in range(len(grid)):
            at, anchor = cell + place // grid.anchors, place % grid.anchors
            row = cell + place // grid.anchors // grid.width * grid.width
            box = [float(table[at, anchor]) for table in (index.x1, index.y1, index.x2, index.y2)]
            assert box == priors.boxes[start + place].tolist()
            assert [float(index.y1[row, anchor]), float(index.y2[row, anchor])] == box[1::2]
            assert index.areas[at, anchor] == area(priors.boxes[start + place])
            assert index.first[at] == start + place - anchor
