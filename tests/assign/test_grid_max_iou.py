"""Grid Max-IoU on paper, and against a loop."""

import hypothesis.strategies as st
import pytest
import torch
from every_assigner import one_level_priors
from hypothesis import given, settings
from max_iou_loops import grid_max_iou
from torchvision.ops import box_iou

from boxmatch.assign import GridMaxIoU
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import REASONS, Targets

ROW = one_level_priors(
    1, 4, 8, [(8, 8), (16, 8)]
)  # centres x = 4, 12, 20, 28; the second anchor reaches 4 px further


def owners(*boxes: list[float], **options) -> list[int]:
    return (
        GridMaxIoU(**options)(ROW, Targets.from_lists([list(boxes)], [[0] * len(boxes)]))
        .gt_index()[0]
        .tolist()
    )


def test_only_anchors_of_the_cell_of_the_centre_learn_and_near_ones_take_no_part():
    # As large as the second anchor of the third cell, and 2 px to its left: 14/18. The first one has 8/16,
    # and the second of the second cell 10/22.
    shifted = [10.0, 0.0, 26.0, 8.0]
    assert owners(shifted) == [-1, -1, -1, -1, -1, 0, -1, -1]
    assert owners(shifted, negative=0.45) == [-1, -1, -1, -2, -2, 0, -1, -1]
    assert owners(shifted, positive=0.45, negative=0.45) == [-1, -1, -1, -2, 0, 0, -1, -1]


def test_the_best_of_the_cell_learns_whatever_its_iou_if_it_overlaps_at_all():
    tiny = [3.0, 3.0, 5.0, 5.0]
    assert owners(tiny) == [0, -1, -1, -1, -1, -1, -1, -1]
    assert owners(tiny, min_positive=4 / 64) == [-1] * 8
    assert owners([60.0, 0.0, 70.0, 8.0]) == [-1] * 8


def test_an_equal_iou_does_not_exceed_the_threshold():
    half = [0.0, 0.0, 4.0, 8.0]  # 1/2 of the first anchor, which is also its best
    whole = [0.0, 0.0, 8.0, 8.0]
    assert owners(whole, positive=0.5) == [0, -1, -1, -1, -1, -1, -1, -1]  # the second anchor has 1/2
    assert owners(whole, positive=0.49, negative=0.49) == [0, 0, -1, -1, -1, -1, -1, -1]
    assert owners(half, min_positive=0.5) == [-1] * 8


def test_what_became_of_each_anchor_of_the_cell_is_told():
    targets = Targets.from_lists([[[0.0, 0.0, 8.0, 8.0]]], [[0]])
    explanation = GridMaxIoU(positive=0.6)(ROW, targets, explain=True).explanation
    assert [REASONS[reason] for reason in explanation.reason.tolist()] == ["kept", "below_threshold"]
    between = GridMaxIoU(positive=0.6, negative=0.4)(ROW, targets, explain=True).explanation
    assert [REASONS[reason] for reason in between.reason.tolist()] == ["kept", "ignored"]


thresholds = st.sampled_from([0.0625, 0.125, 0.25, 0.375, 0.5, 0.75])
quarters = st.integers(-40, 240).map(lambda n: n / 4)
box = st.tuples(quarters, quarters, st.integers(1, 300), st.integers(1, 300)).map(
    lambda row: [row[0], row[1], row[0] + row[2] / 4, row[1] + row[3] / 4]
)
images = st.lists(st.lists(box, max_size=4), min_size=1, max_size=2)
sides = st.integers(2, 90)
levels = st.tuples(
    st.sampled_from([8, 16]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
)
grids = st.lists(levels, min_size=1, max_size=2)


def make_priors(grid: list) -> Priors:
    strides, heights, widths, anchors = zip(*grid)
    return AnchorGrid(anchors, strides)(list(zip(heights, widths)))


def make_targets(boxes: list) -> Targets:
    return Targets.from_lists(boxes, [[0] * len(rows) for rows in boxes])


def cells_of(priors: Priors, box: list[float]) -> list[bool]:
    """Whether each prior is in the cell of the box's centre, or the nearest one, on its level."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    found = []
    for level in priors.levels:
        column = min(max(int(x // level.stride), 0), level.width - 1)
        row = min(max(int(y // level.stride), 0), level.height - 1)
        places = [divmod(place // level.anchors, level.width) for place in range(len(level))]
        found += [place == (row, column) for place in places]
    return found


@settings(max_examples=50, deadline=None)
@given(
    grid=grids,
    boxes=images,
    limits=st.tuples(thresholds, thresholds).map(sorted),
    min_positive=st.sampled_from([0.0, 0.125]),
)
def test_owners_are_those_of_the_loop(grid, boxes, limits, min_positive):
    priors, targets = make_priors(grid), make_targets(boxes)
    negative, positive = limits
    first, expected = 0, []
    for rows in boxes:
        if rows:
            table = box_iou(torch.tensor(rows), priors.boxes).tolist()
            in_cell = [cells_of(priors, row) for row in rows]
            owner = grid_max_iou(table, in_cell, positive, negative, min_positive)
            expected.append([gt + first if gt >= 0 else gt for gt in owner])
        else:
            expected.append([-1] * len(priors))
        first += len(rows)
    found = GridMaxIoU(positive, negative, min_positive=min_positive)(priors, targets)
    assert found.gt_index().tolist() == expected


@pytest.mark.parametrize("arguments", [{"positive": 0.4}, {"negative": -0.1}, {"min_positive": 2.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        GridMaxIoU(**arguments)


def test_priors_on_no_grid_are_refused():
    with pytest.raises(ValueError, match="expected priors on a grid"):
        GridMaxIoU()(Priors.from_boxes(ROW.boxes), make_targets([[[0.0, 0.0, 8.0, 8.0]]]))
