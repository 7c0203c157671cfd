"""Box arithmetic against torchvision and against boxes small enough to check by eye."""

import pytest
import torch
from torchvision import ops

from boxmatch.boxes import (
    area,
    box_centers,
    box_sizes,
    cxcywh_to_xyxy,
    iou_matrix,
    pair_diou,
    pair_giou,
    pair_intersection,
    pair_iof,
    pair_iou,
    shape_iou,
    take_boxes,
    xyxy_to_cxcywh,
)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of 0.1 to 1000 px that overlap each other often, nested and equal ones among them."""
    generator = torch.Generator().manual_seed(seed)
    center = 100 * torch.rand((count, 2), generator=generator)
    side = 10 ** (4 * torch.rand((count, 2), generator=generator) - 1)
    boxes = torch.cat((center - side / 2, center + side / 2), dim=1)
    boxes[1::7] = boxes[0]
    return boxes


FIRST, SECOND = random_boxes(60, seed=1), random_boxes(60, seed=2)
# Overlap 2 × 4 of areas 16 and 24; the hull is 6 × 6.
LEFT, RIGHT = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 6.0]])


def test_formats_turn_into_each_other():
    boxes_cxcywh = torch.tensor([[10.0, 20.0, 6.0, 8.0]])
    assert cxcywh_to_xyxy(boxes_cxcywh).tolist() == [[7, 16, 13, 24]]
    assert xyxy_to_cxcywh(torch.tensor([[7.0, 16.0, 13.0, 24.0]])).tolist() == boxes_cxcywh.tolist()
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(FIRST)), FIRST)
    torch.testing.assert_close(cxcywh_to_xyxy(FIRST), ops.box_convert(FIRST, "cxcywh", "xyxy"))


def test_formats_keep_leading_axes():
    assert cxcywh_to_xyxy(torch.rand(2, 3, 4)).shape == (2, 3, 4)
    assert xyxy_to_cxcywh(torch.rand(2, 0, 4)).shape == (2, 0, 4)


def test_centers_sizes_and_areas_by_hand():
    assert box_centers(RIGHT).tolist() == [[4, 3]]
    assert box_sizes(RIGHT).tolist() == [[4, 6]]
    assert area(RIGHT).tolist() == [24]


def test_swapped_corners_have_no_area_and_overlap_nothing():
    swapped = torch.tensor([[4.0, 4.0, 0.0, 0.0], [4.0, 0.0, 0.0, 4.0]])
    whole = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(2, -1)
    assert area(swapped).tolist() == [0, 0]
    assert pair_intersection(swapped, whole).tolist() == [0, 0]
    assert pair_iou(swapped, whole).tolist() == [0, 0]


def test_overlaps_of_a_pair_by_hand():
    assert pair_intersection(LEFT, RIGHT).tolist() == [8]
    assert pair_iou(LEFT, RIGHT).item() == pytest.approx(8 / 32)
    assert pair_iof(LEFT, RIGHT).item() == pytest.approx(8 / 16)
    assert pair_iof(RIGHT, LEFT).item() == pytest.approx(8 / 24)
    assert pair_giou(LEFT, RIGHT).item() == pytest.approx(8 / 32 - 4 / 36)
    # Centres (2, 2) and (4, 3), diagonal of the 6 × 6 hull.
    assert pair_diou(LEFT, RIGHT).item() == pytest.approx(8 / 32 - 5 / 72)


def test_iou_equals_torchvision_bit_for_bit():
    expected = ops.box_iou(FIRST, SECOND)
    assert torch.equal(iou_matrix(FIRST, SECOND), expected)
    assert torch.equal(pair_iou(FIRST, SECOND), expected.diagonal())


def test_generalised_and_distance_iou_equal_torchvision():
    torch.testing.assert_close(
        pair_giou(FIRST, SECOND), ops.generalized_box_iou(FIRST, SECOND).diagonal(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        pair_diou(FIRST, SECOND), ops.distance_box_iou(FIRST, SECOND).diagonal(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("overlap", [pair_iou, pair_giou, pair_diou, pair_iof])
def test_boxes_without_area_give_a_number_and_a_finite_gradient(overlap):
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]], requires_grad=True)
    value = overlap(point, point.detach().clone())
    assert value.tolist() == [0]
    value.sum().backward()
    assert torch.isfinite(point.grad).all()


@pytest.mark.parametrize("overlap", [pair_iou, pair_giou, pair_diou, pair_iof])
def test_no_pairs_give_no_numbers(overlap):
    assert overlap(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_shape_iou_ignores_places_and_broadcasts():
    wh, others = torch.tensor([[4.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 6.0], [2.0, 2.0], [0.0, 0.0]])
    expected = torch.tensor([[16 / 24, 4 / 16, 0], [0, 0, 0]])
    torch.testing.assert_close(shape_iou(wh[:, None], others), expected)
    torch.testing.assert_close(shape_iou(wh, others[:2]), expected.diagonal())


def test_shape_iou_is_the_iou_of_boxes_moved_to_one_centre():
    first, second = (torch.cat((torch.zeros(60, 2), box_sizes(boxes)), dim=1) for boxes in (FIRST, SECOND))
    torch.testing.assert_close(
        shape_iou(first[:, 2:], second[:, 2:]), pair_iou(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second))
    )


def test_taken_boxes_are_the_indexed_ones():
    rows = torch.tensor([5, 0, 5, 59])
    columns = FIRST.T.contiguous().T
    for boxes in (FIRST, columns):
        for few_or_many in (rows, rows.repeat(40)):
            taken = take_boxes(boxes, few_or_many)
            assert torch.equal(taken, FIRST[few_or_many])
            assert taken.T.is_contiguous()
    assert take_boxes(FIRST, rows[:0]).shape == (0, 4)
