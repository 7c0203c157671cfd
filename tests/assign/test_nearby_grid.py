"""Nearby grid on paper: a 4 × 4 grid of stride 8 with a small (8 px) and a large (16 px) anchor per cell."""

import torch
from every_assigner import one_level_priors

from boxmatch.assign import NearbyGrid
from boxmatch.structures import Targets

# prior = (row * 4 + column) * 2 + anchor
PRIORS = one_level_priors(4, 4, 8, [(8, 8), (16, 16)])
SMALL = [4.0, 4.0, 12.0, 12.0]  # centre (8, 8): row 1, column 1
LARGE = [14.0, 6.0, 30.0, 22.0]  # centre (22, 14): row 1, column 2


def test_each_box_takes_its_anchor_in_the_nine_cells_around_its_centre():
    assignment = NearbyGrid(match_iou_thres=0.5)(PRIORS, Targets.from_lists([[SMALL, LARGE]], [[0, 1]]))
    assert assignment.pairs.gt.tolist() == [0] * 9 + [1] * 9
    assert assignment.pairs.prior.tolist() == [
        *(0, 2, 4, 8, 10, 12, 16, 18, 20),
        *(3, 5, 7, 11, 13, 15, 19, 21, 23),
    ]
    assert assignment.stats().contested == 0


def test_contested_priors_go_to_the_better_shape():
    # Both shapes now pass for both boxes (IoU 1 and 0.25); columns 1 and 2 of rows 0 to 2 are wanted by both.
    assignment = NearbyGrid(match_iou_thres=0.2)(PRIORS, Targets.from_lists([[SMALL, LARGE]], [[0, 1]]))
    owner = assignment.gt_index()[0].reshape(4, 4, 2)
    assert owner[:, :, 0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [-1, -1, -1, -1]]
    assert owner[:, :, 1].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [-1, -1, -1, -1]]
    assert assignment.stats().contested == 12


def test_the_block_is_clipped_at_the_corner():
    corner = [-2.0, -2.0, 6.0, 6.0]
    assignment = NearbyGrid(match_iou_thres=0.5)(PRIORS, Targets.from_lists([[corner]], [[0]]))
    assert assignment.pairs.prior.tolist() == [0, 2, 8, 10]


def test_the_greatest_iou_wins_whatever_the_order_of_the_boxes():
    # The original keeps the lowest IoU here: its duplicates are not neighbours in its sorted list.
    boxes = torch.tensor([[8.0, 8.0, 8.0 + side, 8.0 + side] for side in (6, 8, 7)])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assignment = NearbyGrid()(PRIORS, Targets.from_lists([boxes[order]], [[0, 1, 2]]))
        small = assignment.gt_index()[0, 0::2]
        assert set(small[small >= 0].tolist()) == {order.index(1)}
