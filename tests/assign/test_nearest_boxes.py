"""The nearest anchors and predictions by L1 distance, against all pairs."""

import pytest
import torch
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from every_assigner import random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boxmatch.assign import nearest_boxes as module
from boxmatch.assign.nearest_boxes import nearest_anchors, nearest_boxes
from boxmatch.boxes import xyxy_to_cxcywh
from boxmatch.priors import Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Targets


def all_pairs(boxes_cxcywh: Tensor, targets: Targets, k: int) -> tuple[Tensor, Tensor]:
    """Sort all distances of all boxes of an image; stable, so that ties keep the order of the priors."""
    of_image = boxes_cxcywh.double()[targets.image if len(boxes_cxcywh) > 1 else targets.image * 0]
    gts = xyxy_to_cxcywh(targets.boxes).double()
    apart, order = (of_image - gts[:, None]).abs().sum(2).sort(dim=1, stable=True)
    return order[:, :k], apart[:, :k]


@given(grid=grids(), images=batches(), k=st.sampled_from([1, 2, 3, 4, 7, 200]))
@settings(max_examples=50, deadline=None)
def test_anchors_equal_all_pairs(grid, images, k) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    wanted = all_pairs(torch.cat((priors.centers, priors.wh), 1)[None], targets, k)
    for ours in (priors, Priors.from_boxes(priors.boxes)):
        prior, distance = nearest_anchors(ours, targets, k)
        assert torch.equal(prior, wanted[0])
        assert torch.equal(distance, wanted[1])


@given(grid=grids(), images=batches(), seed=st.integers(0, 2**31 - 1), k=st.sampled_from([1, 3, 4, 200]))
@settings(max_examples=40, deadline=None)
def test_predictions_equal_all_pairs(grid, images, seed, k) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    predictions = make_predictions(priors, targets, seed)
    assert predictions.boxes is not None
    boxes = xyxy_to_cxcywh(predictions.boxes)
    prior, distance = nearest_boxes(boxes, targets, k)
    wanted = all_pairs(boxes, targets, k)
    assert torch.equal(prior, wanted[0])
    assert torch.equal(distance, wanted[1])


@pytest.mark.parametrize("shift", [0.0, 1e5])
@pytest.mark.parametrize("groups", [1, 2, 9, 128])
def test_no_choice_of_groups_changes_the_result(shift: float, groups: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUPS", groups)
    targets = random_batch((6, 0, 9))
    random = torch.Generator().manual_seed(3)
    boxes = torch.rand((3, 500, 4), generator=random) * 90
    boxes[:, ::5] = boxes[:, :1]  # a hundred equal ones
    boxes[..., :2] += shift
    moved = Targets(targets.boxes + shift, targets.labels, targets.image, targets.ignore, 3)
    prior, distance = nearest_boxes(boxes, moved, 5)
    wanted = all_pairs(boxes, moved, 5)
    assert torch.equal(prior, wanted[0])
    assert torch.equal(distance, wanted[1])


def test_small_pieces_change_nothing(monkeypatch) -> None:
    priors, targets = two_level_priors(), random_batch((9, 0, 14, 1))
    predictions = make_predictions(priors, targets, 2)
    assert predictions.boxes is not None
    boxes = xyxy_to_cxcywh(predictions.boxes)
    whole = (*nearest_anchors(priors, targets, 4), *nearest_boxes(boxes, targets, 4))
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 50)
    parts = (*nearest_anchors(priors, targets, 4), *nearest_boxes(boxes, targets, 4))
    for before, after in zip(whole, parts):
        assert torch.equal(before, after)


def test_without_boxes_or_priors_nothing_is_near() -> None:
    empty, full = random_batch((0, 0)), random_batch((3,))
    for prior, distance in (
        nearest_anchors(two_level_priors(), empty, 4),
        nearest_boxes(torch.zeros(2, 9, 4), empty, 4),
    ):
        assert prior.shape == distance.shape == (0, 4)
    assert nearest_anchors(Priors.from_boxes(torch.zeros(0, 4)), full, 4)[0].shape == (3, 0)
