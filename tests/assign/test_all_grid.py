"""All grid on paper: a 4 × 4 grid of stride 8 with a small (8 px) and a large (16 px) anchor per cell."""

from every_assigner import one_level_priors

from boxmatch.assign import AllGrid
from boxmatch.structures import Targets

# prior = (row * 4 + column) * 2 + anchor
PRIORS = one_level_priors(4, 4, 8, [(8, 8), (16, 16)])
SMALL = [4.0, 4.0, 12.0, 12.0]
LARGE = [14.0, 6.0, 30.0, 22.0]


def test_each_box_takes_the_anchors_that_overlap_it_by_more_than_the_threshold():
    assignment = AllGrid(match_iou_thres=0.2)(PRIORS, Targets.from_lists([[SMALL, LARGE]], [[0, 1]]))
    # SMALL lies in the middle of four cells: 16 / 112 with their small anchors, 64 / 256 with their large
    # ones. LARGE against large anchors: overlaps of 14 or 10 px in each direction pass, 14 × 6 px (IoU 0.196)
    # fails; against small anchors: only the one that it covers, 64 / 256.
    assert assignment.pairs.gt.tolist() == [0] * 4 + [1] * 5
    assert assignment.pairs.prior.tolist() == [1, 3, 9, 11, 12, 13, 15, 21, 23]


def test_a_touching_anchor_is_no_candidate_even_without_a_threshold():
    cell = [8.0, 8.0, 16.0, 16.0]  # exactly one cell; its eight neighbours touch it with IoU 0
    assignment = AllGrid(match_iou_thres=0.0)(PRIORS, Targets.from_lists([[cell]], [[0]]))
    small = assignment.gt_index()[0, 0::2].reshape(4, 4)
    assert (small == 0).nonzero().tolist() == [[1, 1]]


def test_the_added_eps_takes_an_overlap_of_exactly_the_threshold_below_it():
    assert 3 not in _owned(0.25)
    assert 3 in _owned(0.2499)


def test_a_box_outside_the_picture_meets_the_anchors_that_stick_out():
    outside = [-6.0, -6.0, -1.0, -1.0]  # 25 px², and the large anchor of the first cell begins at (-4, -4)
    assignment = AllGrid(match_iou_thres=0.03)(PRIORS, Targets.from_lists([[outside]], [[0]]))
    assert assignment.pairs.prior.tolist() == [1]  # 9 / (25 + 256 - 9)


def test_a_contested_anchor_goes_to_the_greater_overlap():
    assignment = AllGrid(match_iou_thres=0.1)(
        PRIORS, Targets.from_lists([[[10.0, 8.0, 18.0, 16.0], [8.0, 8.0, 16.0, 16.0]]], [[0, 1]])
    )
    owner = assignment.gt_index()[0]
    assert owner[10] == 1  # row 1, column 1: 6 / 10 against 8 / 8
    assert owner[12] == 0  # row 1, column 2: 2 / 14 against none


def _owned(threshold: float) -> list[int]:
    return AllGrid(match_iou_thres=threshold)(
        PRIORS, Targets.from_lists([[SMALL]], [[0]])
    ).pairs.prior.tolist()
