"""Runs of overlapping anchors against the exhaustive comparison of every box with every anchor."""

import pytest
import torch

from boxmatch.boxes import area, pair_intersection
from boxmatch.priors import AnchorGrid
from boxmatch.spatial.overlap_runs import overlap_runs

# Levels differ in their number of anchors and in shape, one is a single cell, a stride is no power of two.
PRIORS = AnchorGrid([[(10, 13), (40, 6), (33, 23)], [(62, 45)], [(5, 90), (150, 120)]], (8, 12, 40))(
    [(7, 9), (5, 3), (1, 1)]
)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of 1 to 150 px, some of them outside the grid."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand((count, 2), generator=generator) * 120 - 20
    side = 150 ** torch.rand((count, 2), generator=generator)
    return torch.cat([center - side / 2, center + side / 2], 1)


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.0625, 0.3, 0.5])
@pytest.mark.parametrize("eps", [0.0, 5.0])
def test_every_overlapping_anchor_is_listed_once_with_its_iou(threshold, eps):
    boxes = random_boxes(200, seed=1)
    pairs, iou = overlap_runs(PRIORS.index, boxes, threshold, torch.tensor([eps, 2 * eps, 0.0]))
    gt = torch.arange(len(boxes)).repeat_interleave(len(PRIORS))
    prior = torch.arange(len(PRIORS)).repeat(len(boxes))
    inter = pair_intersection(boxes[gt].double(), PRIORS.boxes[prior].double())
    extra = torch.tensor([eps, 2 * eps, 0.0])[PRIORS.level[prior]]
    expected = inter / (area(boxes[gt].double()) + PRIORS.wh[prior].double().prod(1) - inter + extra)
    listed = (pairs.gt * len(PRIORS) + pairs.prior).sort()
    assert listed.values.tolist() == (expected > threshold).nonzero().squeeze(1).tolist()
    assert torch.allclose(iou[listed.indices].double(), expected[expected > threshold], rtol=1e-5, atol=1e-7)
    assert (pairs.gt.diff() >= 0).all()
    assert len(pairs) > 10


def test_boxes_that_touch_an_anchor_share_nothing_with_it():
    cells = AnchorGrid([[(8, 8)]], (8,))([(3, 3)])
    pairs, iou = overlap_runs(cells.index, torch.tensor([[8.0, 8.0, 16.0, 16.0]]), 0.0, torch.zeros(1))
    assert pairs.prior.tolist() == [4]
    assert iou.tolist() == [1.0]


def test_no_boxes_and_far_boxes_give_no_pairs():
    for boxes in (torch.zeros(0, 4), torch.tensor([[1e5, 1e5, 1e5 + 50, 1e5 + 50]])):
        pairs, iou = overlap_runs(PRIORS.index, boxes, 0.1, torch.zeros(3))
        assert len(pairs) == len(iou) == 0
