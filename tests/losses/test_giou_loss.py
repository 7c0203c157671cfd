"""The GIoU loss: by hand, against torchvision, finite everywhere."""

import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import generalized_box_iou_loss

from boxmatch.losses import giou_loss


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes in a picture of 100 × 100, float64."""
    generator = torch.Generator().manual_seed(seed)
    corners = 60 * torch.rand((count, 2), generator=generator, dtype=torch.float64)
    sides = 1 + 40 * torch.rand((count, 2), generator=generator, dtype=torch.float64)
    return torch.cat([corners, corners + sides], 1)


def test_by_hand() -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(3, 1)
    target = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [6.0, 0.0, 8.0, 4.0]])
    # Equal; 8 of 24 shared and nothing else in the hull; apart, 24 of a hull of 32 covered.
    assert_close(giou_loss(box, target), torch.tensor([0.0, 1 - 8 / 24, 1 + 8 / 32]))


def test_it_equals_torchvision() -> None:
    boxes, targets = random_boxes(200, 0), random_boxes(200, 1)
    assert_close(giou_loss(boxes, targets), generalized_box_iou_loss(boxes, targets), rtol=1e-7, atol=1e-8)


def test_inclusive_pixels_take_one_off_the_far_edges() -> None:
    boxes, targets = random_boxes(20, 2), random_boxes(20, 3)
    pixel = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    found = giou_loss(boxes + pixel, targets + pixel, inclusive_pixels=True)
    assert_close(found, giou_loss(boxes, targets))
    assert not torch.allclose(found, giou_loss(boxes + pixel, targets + pixel))


def test_a_box_with_negative_extent_has_no_area() -> None:
    inverted = torch.tensor([[4.0, 4.0, 2.0, 2.0]])
    point = torch.tensor([[4.0, 4.0, 4.0, 4.0]])
    target = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert_close(giou_loss(inverted, target), giou_loss(point, target))
    assert_close(giou_loss(inverted, target), torch.ones(1))


@pytest.mark.parametrize("inclusive_pixels", [False, True])
def test_values_and_gradients_are_finite_on_extreme_boxes(inclusive_pixels: bool) -> None:
    extremes = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0],
            [5.0, 5.0, 5.0, 5.0],
            [9.0, 9.0, 1.0, 1.0],
            [-1e4, -1e4, 1e4, 1e4],
            [-3e38, -3e38, 3e38, 3e38],
            [0.0, 0.0, 0.5, 0.5],
        ]
    )
    boxes = extremes.repeat_interleave(6, 0).requires_grad_()
    loss = giou_loss(boxes, extremes.repeat(6, 1), inclusive_pixels=inclusive_pixels)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(boxes.grad).all()
    assert (loss >= 0).all() and (loss <= 2).all()


def test_gradients_agree_with_differences() -> None:
    boxes, targets = random_boxes(8, 4).requires_grad_(), random_boxes(8, 5)
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, targets), boxes)


def test_no_pairs_give_no_loss() -> None:
    assert giou_loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
