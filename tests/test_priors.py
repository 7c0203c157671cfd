"""Grids of priors: order, sizes, what is kept and refused; and each query once by hand."""

import copy
import pickle

import pytest
import torch

from boxmatch.priors import AnchorGrid, PointGrid, Priors
from boxmatch.structures import Level, Pairs, Targets

# Two rows of three cells of 8 px with two anchors each, then one cell of 16 px with one.
GRID = AnchorGrid([[(4, 6), (10, 2)], [(20, 20)]], (8, 16))
SIZES = [(2, 3), (1, 1)]
# 4 × 4 points at 4, 12, 20, 28; point 4 · row + column.
POINTS = PointGrid((8,))([(4, 4)])


def boxes(*rows: list[float]) -> Targets:
    return Targets.from_lists([list(rows)], [[0] * len(rows)])


def listed(pairs: Pairs) -> list[int]:
    """Priors of the only box."""
    assert pairs.gt.tolist() == [0] * len(pairs)
    return pairs.prior.tolist()


def test_priors_run_through_level_row_column_and_anchor():
    priors = GRID(SIZES)
    assert priors.levels == (Level(2, 3, 8, 2), Level(1, 1, 16, 1))
    assert len(priors) == 13
    assert priors.centers[::2].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert torch.equal(priors.centers[0:12:2], priors.centers[1:12:2])
    assert priors.boxes[[0, 1, 11, 12]].tolist() == [
        [2, 1, 6, 7],
        [-1, 3, 9, 5],
        [15, 11, 25, 13],
        [-2, -2, 18, 18],
    ]
    assert priors.level.tolist() == [0] * 12 + [1]
    assert priors.stride.tolist() == [8] * 12 + [16]


def test_a_prior_knows_its_cell():
    cell = GRID(SIZES).cell(torch.tensor([0, 1, 5, 6, 11, 12]))
    assert cell.level.tolist() == [0, 0, 0, 0, 0, 1]
    assert cell.row.tolist() == [0, 0, 0, 1, 1, 0]
    assert cell.column.tolist() == [0, 0, 2, 0, 2, 0]
    assert cell.anchor.tolist() == [0, 1, 1, 0, 1, 0]


def test_sizes_are_free_of_the_rounding_of_corners():
    width, height = 0.1, 33.3
    priors = AnchorGrid([[(width, height)]], (8,))([(1, 1200)])
    assert torch.equal(priors.wh, torch.tensor([[width, height]]).expand(1200, -1))
    assert not torch.equal(priors.boxes[:, 2:] - priors.boxes[:, :2], priors.wh)


def test_points_stand_in_the_middle_of_a_square_of_their_stride():
    priors = PointGrid((8, 16), size=2)([(1, 2), (1, 1)])
    assert priors.centers.tolist() == [[4, 4], [12, 4], [8, 8]]
    assert priors.boxes.tolist() == [[-4, -4, 12, 12], [4, -4, 20, 12], [-8, -8, 24, 24]]


def test_boxes_on_no_grid_become_priors():
    priors = Priors.from_boxes(torch.tensor([[0.0, 0.0, 4.0, 2.0], [6.0, 0.0, 8.0, 8.0]]))
    assert priors.levels == ()
    assert priors.centers.tolist() == [[2, 1], [7, 4]]
    assert priors.wh.tolist() == [[4, 2], [2, 8]]
    assert priors.stride.tolist() == [1, 1]


def test_the_same_sizes_give_the_same_object():
    assert GRID(SIZES) is GRID(((2, 3), (1, 1)), torch.device("cpu"))
    assert GRID(SIZES) is not GRID([(2, 3), (1, 2)])
    assert GRID(SIZES) is not AnchorGrid([[(4, 6), (10, 3)], [(20, 20)]], (8, 16))(SIZES)


def test_grids_are_copied_and_pickled_with_their_anchors():
    for twin in (copy.deepcopy(GRID), pickle.loads(pickle.dumps(GRID))):
        assert twin.anchors == GRID.anchors
        assert torch.equal(twin(SIZES).boxes, GRID(SIZES).boxes)


def test_priors_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        priors = AnchorGrid([[(5, 7)]], (8,))([(3, 3)])
        inside = priors.inside(boxes([0, 0, 10, 10]))
    scale = torch.ones(1, requires_grad=True)
    (priors.boxes * scale).sum().backward()
    assert scale.grad.item() == priors.boxes.sum().item()
    assert listed(inside) == listed(priors.inside(boxes([0, 0, 10, 10])))


@pytest.mark.parametrize(
    ("anchors", "strides", "message"),
    [
        ([[(1, 1)]], (8, 16), "one list of anchors per stride, got 1"),
        ([], (), "one list of anchors per stride"),
        ([[(1, 1)], []], (8, 16), "level 1: expected a stride and anchors"),
        ([[(1, 0)]], (8,), r"level 0: .*\(1.0, 0.0\)"),
        ([[(1, 1, 1)]], (8,), "level 0: expected a stride and anchors"),
        ([[(1, 1)]], (0,), "got stride 0"),
    ],
)
def test_impossible_grids_are_refused(anchors, strides, message):
    with pytest.raises(ValueError, match=message):
        AnchorGrid(anchors, strides)


@pytest.mark.parametrize("sizes", [[(2, 3)], [(2, 3), (0, 1)], [(2, 3), (1, 1), (1, 1)]])
def test_sizes_that_do_not_fit_the_levels_are_refused(sizes):
    with pytest.raises(ValueError, match="expected a height and width of 1 or more for 2 levels"):
        GRID(sizes)


def test_inside_leaves_out_the_border():
    assert listed(POINTS.inside(boxes([4, 4, 28, 13]))) == [5, 6]


def test_within_counts_in_strides_and_leaves_out_the_border():
    box = boxes([10, 10, 14, 14])
    assert listed(POINTS.within(box, 1)) == [5]
    assert listed(POINTS.within(box, 1.01)) == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_a_centre_on_the_line_belongs_to_the_cell_behind_it():
    assert listed(POINTS.cells(boxes([12, 4, 20, 12]))) == [6]
    assert listed(POINTS.cells(boxes([12, 4, 19.5, 11.5]))) == [1]


def test_a_centre_outside_belongs_to_the_nearest_cell():
    assert listed(POINTS.cells(boxes([30, 30, 34, 34]))) == [15]
    assert listed(POINTS.cells(boxes([-90, 900, -80, 910]), reach=1)) == [8, 9, 12, 13]


def test_cells_give_all_anchors_of_all_levels():
    assert listed(GRID(SIZES).cells(boxes([10, 10, 14, 14]))) == [8, 9, 12]


def test_equally_near_priors_are_taken_from_the_lowest():
    between_four = boxes([10, 10, 22, 22])
    assert listed(POINTS.nearest(between_four, 3)) == [5, 6, 9]
    assert listed(POINTS.nearest(boxes([10, 10, 14, 14]), 2)) == [1, 5]


def test_nearest_takes_the_whole_of_a_small_level_and_part_of_a_cell():
    assert listed(GRID(SIZES).nearest(boxes([18, 10, 22, 14]), 3)) == [4, 10, 11, 12]


def test_far_away_the_nearest_are_a_column():
    assert listed(POINTS.nearest(boxes([-5000, 10, -4900, 16]), 3)) == [0, 4, 8]


def test_overlapping_asks_for_the_threshold_itself_and_strict_for_more():
    # The box is the cell of point 5 and half of that of point 6: IoU 64 / 96 and 32 / 128.
    box = boxes([8, 8, 20, 16])
    assert listed(POINTS.overlapping(box, 0.25)) == [5, 6]
    assert listed(POINTS.overlapping(box, 0.25, strict=True)) == [5]
    pairs, iou = POINTS.overlaps(box, 0)
    assert listed(pairs) == [5, 6]
    assert iou.tolist() == pytest.approx([2 / 3, 1 / 4])


def test_queries_answer_for_ignore_regions_and_for_every_image():
    targets = Targets.from_lists([[[0, 0, 8, 8]], [], [[8, 0, 16, 8]]], [[0], [], [0]], [[True], [], [False]])
    pairs = POINTS.inside(targets)
    assert (pairs.gt.tolist(), pairs.prior.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda priors, box: priors.cells(box, -1), "reach of 0 or more cells, got -1"),
        (lambda priors, box: priors.within(box, 0), "radius above 0 strides, got 0"),
        (lambda priors, box: priors.within(box, float("nan")), "radius above 0 strides, got nan"),
        (lambda priors, box: priors.nearest(box, 0), "k of 1 or more priors per level, got 0"),
        (lambda priors, box: priors.overlapping(box, 1.5), r"min_iou in \[0, 1\], got 1.5"),
    ],
)
def test_senseless_questions_are_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(POINTS, boxes([0, 0, 4, 4]))


def test_priors_on_no_grid_have_no_cells():
    free = Priors.from_boxes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    with pytest.raises(ValueError, match="expected priors on a grid"):
        free.cells(boxes([0, 0, 4, 4]))
    with pytest.raises(ValueError, match="expected priors on a grid"):
        free.cell(torch.tensor([0]))
