"""The GIoU loss with its gradient by hand."""

import pytest
import torch

from boxmatch.boxes import pair_giou
from boxmatch.losses.giou_slope import giou_loss_and_slope


def random_pairs(swapped: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and targets that overlap or not; some boxes with negative sides."""
    random = torch.Generator().manual_seed(0)
    corner = torch.rand((500, 2), generator=random).double() * 30
    size = torch.rand((500, 2), generator=random).double() * 20 - (5 if swapped else 0)
    other = torch.rand((500, 2), generator=random).double() * 30
    other_size = torch.rand((500, 2), generator=random).double() * 20 + 0.1
    return torch.cat((corner, corner + size), 1), torch.cat((other, other + other_size), 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_value_and_slope_are_those_of_the_graph(swapped):
    boxes, targets = random_pairs(swapped)
    loss, slope = giou_loss_and_slope(boxes, targets)
    leaf = boxes.clone().requires_grad_()
    expected = 1 - pair_giou(leaf, targets)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(slope.T, torch.autograd.grad(expected.sum(), leaf)[0])


def test_a_perfect_prediction_is_left_alone():
    box = torch.tensor([[3.0, 4.0, 13.0, 9.0]])
    loss, slope = giou_loss_and_slope(box, box)
    assert loss.tolist() == [0]
    assert slope.abs().max() < 1e-7


def test_boxes_without_extent_are_pulled_apart():
    box = torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 2.0, 5.0, 8.0]])
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(2, 1)
    loss, slope = giou_loss_and_slope(box, target)
    assert loss.isfinite().all() and slope.isfinite().all()
    assert (slope[0, 1] > 0) and (slope[2, 1] < 0)  # downhill: left edge to the left, right edge to the right


def test_no_pairs_are_fine():
    loss, slope = giou_loss_and_slope(torch.zeros(0, 4), torch.zeros(0, 4))
    assert loss.shape == (0,) and slope.shape == (4, 0)
