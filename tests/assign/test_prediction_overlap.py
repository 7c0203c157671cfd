"""Predictions over boxes, against all pairs: equal to the bit, wherever predictions lie."""

import pytest
import torch
from drawn_problems import batches, grids, iou, make_predictions, make_priors, make_targets
from every_assigner import random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.assign import prediction_overlap
from boxmatch.assign.prediction_overlap import predictions_over_boxes
from boxmatch.boxes import iou_matrix
from boxmatch.priors import Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Predictions, Targets

THRESHOLDS = [0.01, 0.2, 0.5, 0.7, 0.95]


def of(boxes: torch.Tensor) -> Predictions:
    return Predictions(logits=torch.zeros(*boxes.shape[:2], 1), deltas=torch.zeros_like(boxes), boxes=boxes)


def over(priors: Priors, targets: Targets, boxes: torch.Tensor, min_iou: float) -> torch.Tensor:
    return predictions_over_boxes("Test", priors, targets, of(boxes), min_iou)


def all_pairs(targets: Targets, boxes: torch.Tensor, min_iou: float) -> torch.Tensor:
    """The rule as a matrix per image."""
    rows = [
        (iou_matrix(image, targets.boxes[targets.image == number]) > min_iou).any(1)
        for number, image in enumerate(boxes)
    ]
    return torch.stack(rows)


def jittered(targets: Targets, count: int, seed: int, spread: float) -> torch.Tensor:
    """Two in three predictions near a box of their image, a share of its sides off."""
    random = torch.Generator().manual_seed(seed)
    boxes = torch.rand((targets.batch_size, count, 4), generator=random).sort(2).values * 90
    for image in range(targets.batch_size):
        own = targets.boxes[targets.image == image]
        if len(own):
            pick = torch.randint(len(own), (count,), generator=random)
            near = torch.rand(count, generator=random) < 2 / 3
            boxes[image, near] = own[pick[near]]
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    return boxes + spread * size * torch.randn(boxes.shape, generator=random)


@pytest.mark.parametrize("min_iou", THRESHOLDS)
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.4])
def test_it_equals_all_pairs(min_iou: float, spread: float) -> None:
    priors, targets = two_level_priors(), random_batch((9, 0, 14, 1))
    boxes = jittered(targets, len(priors), 5, spread)
    wanted = all_pairs(targets, boxes, min_iou)
    assert torch.equal(over(priors, targets, boxes, min_iou), wanted)
    assert not wanted.all()
    assert wanted.any() or spread * min_iou > 0.3


@given(grid=grids(), images=batches(), seed=st.integers(0, 2**31 - 1), min_iou=st.sampled_from(THRESHOLDS))
@settings(max_examples=40, deadline=None)
def test_it_equals_the_loops(grid: tuple, images: list, seed: int, min_iou: float) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    predictions = make_predictions(priors, targets, seed)
    assert predictions.boxes is not None
    found = predictions_over_boxes("Test", priors, targets, predictions, min_iou).tolist()
    for image, boxes in enumerate(predictions.boxes.tolist()):
        own = [
            box for box, of_image in zip(targets.boxes.tolist(), targets.image.tolist()) if of_image == image
        ]
        for prior, box in enumerate(boxes):
            assert found[image][prior] == any(iou(box, other) > min_iou for other in own)


def test_the_comparison_is_strict() -> None:
    priors = two_level_priors()
    targets = Targets.from_lists([[[0.0, 0.0, 16.0, 16.0]]], [[0]])
    boxes = torch.zeros(1, len(priors), 4)
    boxes[0, 3] = torch.tensor([0.0, 0.0, 16.0, 8.0])  # IoU 1 / 2
    boxes[0, 4] = torch.tensor([0.0, 0.0, 16.0, 8.25])
    assert over(priors, targets, boxes, 0.5).nonzero().tolist() == [[0, 4]]


def test_at_the_least_iou_the_window_still_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    # A prediction within the box and one around it, in a corner: the farthest centres for their IoU. Bins of
    # a third of a pixel hide no mistake.
    monkeypatch.setattr(prediction_overlap, "SIDE", 256)
    priors = two_level_priors()
    targets = Targets.from_lists([[[0.0, 0.0, 32.0, 32.0]]], [[0]])
    for min_iou in THRESHOLDS:
        side = 32 * (min_iou + 1e-3)
        boxes = torch.zeros(1, len(priors), 4)
        boxes[0, 0] = torch.tensor([0.0, 0.0, side, 32.0])
        boxes[0, 1] = torch.tensor([0.0, 0.0, 32.0, 32**2 / side])
        assert over(priors, targets, boxes, min_iou).nonzero().tolist() == [[0, 0], [0, 1]]


def test_priors_without_a_grid_serve_as_well() -> None:
    targets = random_batch((6, 3))
    boxes = jittered(targets, 50, 1, 0.1)
    priors = Priors.from_boxes(boxes[0])
    assert torch.equal(over(priors, targets, boxes, 0.5), all_pairs(targets, boxes, 0.5))
    none = Priors.from_boxes(torch.zeros(0, 4))
    assert over(none, targets, torch.zeros(2, 0, 4), 0.5).shape == (2, 0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shift", [0.0, 3e4])
def test_tiny_huge_and_distant_boxes_are_found(scale: float, shift: float) -> None:
    priors, plain = two_level_priors(), random_batch((8, 5))
    boxes = scale * jittered(plain, len(priors), 2, 0.1) + shift
    targets = Targets(scale * plain.boxes + shift, plain.labels, plain.image, plain.ignore, 2)
    assert torch.equal(over(priors, targets, boxes, 0.7), all_pairs(targets, boxes, 0.7))


def test_wild_predictions_overlap_nothing_and_break_nothing() -> None:
    priors, targets = two_level_priors(), random_batch((4,))
    boxes = torch.full((1, len(priors), 4), 3e38)
    boxes[0, ::3] *= torch.tensor([-1.0, -1.0, 1.0, 1.0])
    boxes[0, 1::3, :2] = -3e38
    assert not over(priors, targets, boxes, 0.1).any()


def test_small_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    priors, targets = two_level_priors(), random_batch((9, 0, 14, 1))
    boxes = jittered(targets, len(priors), 5, 0.1)
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 30)
    assert torch.equal(over(priors, targets, boxes, 0.5), all_pairs(targets, boxes, 0.5))


def test_a_threshold_of_one_marks_nothing() -> None:
    priors, targets = two_level_priors(), random_batch((4,))
    assert not over(priors, targets, targets.boxes[:1].expand(1, len(priors), 4), 1.0).any()


def test_predictions_without_boxes_are_refused() -> None:
    predictions = Predictions(logits=torch.zeros(1, 2, 1), deltas=torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="Test compares predicted boxes, got none"):
        predictions_over_boxes(
            "Test", Priors.from_boxes(torch.zeros(2, 4)), random_batch((1,)), predictions, 0.5
        )
