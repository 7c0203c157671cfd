"""Single grid on paper: a 4 × 4 grid of stride 8 with a small (8 px) and a large (16 px) anchor per cell."""

import pytest
import torch
from every_assigner import one_level_priors, two_level_priors

from boxmatch.assign import SingleGrid
from boxmatch.structures import Targets

# prior = (row * 4 + column) * 2 + anchor
PRIORS = one_level_priors(4, 4, 8, [(8, 8), (16, 16)])
SMALL = [4.0, 4.0, 12.0, 12.0]  # centre (8, 8): row 1, column 1
LARGE = [14.0, 6.0, 30.0, 22.0]  # centre (22, 14): row 1, column 2


def test_each_box_takes_the_anchor_of_its_shape_in_the_cell_of_its_centre():
    assignment = SingleGrid(match_iou_thres=0.5)(PRIORS, Targets.from_lists([[SMALL, LARGE]], [[0, 1]]))
    assert assignment.pairs.gt.tolist() == [0, 1]
    assert assignment.pairs.prior.tolist() == [10, 13]
    assert assignment.weight.tolist() == assignment.score.tolist() == [1.0, 1.0]
    assert assignment.neg_weight.tolist() == [0.0, 0.0]


def test_a_factor_of_four_in_area_is_just_below_an_iou_of_a_quarter():
    targets = Targets.from_lists([[SMALL]], [[0]])
    # 64 / 256 is 0.25; the 1e-6 of the picture's area added to the union takes it below.
    assert SingleGrid(match_iou_thres=0.25)(PRIORS, targets).pairs.prior.tolist() == [10]
    assert SingleGrid(match_iou_thres=0.2499)(PRIORS, targets).pairs.prior.tolist() == [10, 11]


def test_a_cell_claimed_twice_goes_to_the_better_shape_and_not_to_the_later_box():
    nearly_small = [4.0, 4.0, 12.0, 13.0]  # centre in the same cell, IoU with the small anchor 8 / 9
    assignment = SingleGrid(match_iou_thres=0.5)(
        PRIORS, Targets.from_lists([[SMALL, nearly_small]], [[0, 1]])
    )
    assert assignment.pairs.gt.tolist() == [0]
    assert assignment.stats().starved.tolist() == [1]
    assert assignment.stats().contested == 1


def test_a_box_of_no_anchors_shape_stays_without_a_positive():
    thin = [0.0, 15.0, 32.0, 16.0]  # IoU with the anchors 8 / 88 and 16 / 272
    assert len(SingleGrid(match_iou_thres=0.1)(PRIORS, Targets.from_lists([[thin]], [[0]])).pairs) == 0


@pytest.mark.parametrize(
    ("center", "cell"), [((32, 32), 15), ((0, 0), 0), ((8, 8), 5), ((7.999, 8), 4), ((40, -3), 3)]
)
def test_a_centre_on_a_line_belongs_to_the_next_cell_and_beyond_the_border_to_the_last(center, cell):
    x, y = center
    targets = Targets.from_lists([[[x - 4, y - 4, x + 4, y + 4]]], [[0]])
    assert SingleGrid(match_iou_thres=0.5)(PRIORS, targets).pairs.prior.tolist() == [2 * cell]


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"match_iou_thres in \[0, 1\)"):
        SingleGrid(match_iou_thres=wrong)


def test_every_level_is_matched_on_its_own():
    priors = two_level_priors(32, 32)
    box = torch.tensor([[2.0, 2.0, 32.0, 32.0]])  # 30 × 30: near (33, 23) of level 0 and (30, 61) of level 1
    assignment = SingleGrid(match_iou_thres=0.4)(priors, Targets.from_lists([box], [[0]]))
    # Level 0: 4 × 4 cells, centre (17, 17) in cell 10, last two anchors; level 1: 2 × 2 cells, cell 3, first.
    assert assignment.pairs.prior.tolist() == [10 * 3 + 1, 10 * 3 + 2, 48 + 3 * 3 + 0]
    assert assignment.level.tolist() == [0, 0, 1]
