"""Task-aligned assignment on paper, and against an obvious loop."""

import math

import pytest
import torch
from every_assigner import one_level_priors, random_batch, two_level_priors

from boxmatch.assign import TaskAligned
from boxmatch.structures import Predictions, Targets

POINTS = one_level_priors(1, 4, 8, [(8, 8)])  # centres x = 4, 12, 20, 28 at y = 4
WIDE = [0.0, 0.0, 32.0, 8.0]
LEFT = [0.0, 0.0, 16.0, 8.0]


def predicted(boxes: list[list[float]], probabilities: list[float]) -> Predictions:
    """One image, one class, sure that there is an object."""
    logit = torch.logit(torch.tensor(probabilities)).reshape(1, -1, 1)
    return Predictions(logits=logit, deltas=torch.zeros(1, len(boxes), 4), boxes=torch.tensor([boxes]))


def test_the_best_aligned_priors_inside_the_box_learn_it():
    predictions = predicted([WIDE, LEFT, WIDE, WIDE], [0.1, 0.9, 0.4, 0.9])
    assignment = TaskAligned(topk=2, similarity="iou")(
        POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions
    )
    # LEFT overlaps WIDE by half: 0.9 ** 0.5 / 64 is less than the others' 0.1 ** 0.5 and more.
    assert assignment.pairs.prior.tolist() == [2, 3]
    assert assignment.score.tolist() == pytest.approx([math.sqrt(0.4 / 0.9), 1.0], rel=1e-4)
    assert torch.equal(assignment.weight, assignment.score)


def test_a_contested_prior_goes_to_the_box_it_overlaps_more():
    predictions = predicted([LEFT, LEFT, WIDE, WIDE], [0.5] * 4)
    assignment = TaskAligned(topk=4, similarity="iou")(
        POINTS, Targets.from_lists([[WIDE, LEFT]], [[0, 0]]), predictions
    )
    assert assignment.gt_index().tolist() == [[1, 1, 0, 0]]
    assert assignment.stats().contested == 2


def test_a_box_that_nothing_overlaps_learns_nothing():
    far = [[100.0, 100.0, 110.0, 110.0]] * 4
    assignment = TaskAligned()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predicted(far, [0.5] * 4))
    assert len(assignment.pairs) == 0
    assert assignment.stats().starved.tolist() == [0]


def test_predictions_without_boxes_are_refused():
    predictions = Predictions(logits=torch.zeros(1, 4, 1), deltas=torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        TaskAligned()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions)


@pytest.mark.parametrize("arguments", [{"topk": 0}, {"alpha": -1.0}, {"beta": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        TaskAligned(**arguments)


@pytest.mark.parametrize("topk", [1, 3, 10])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_equals_an_obvious_loop(topk, seed):
    priors, targets = two_level_priors(), random_batch()
    generator = torch.Generator().manual_seed(seed)
    shape = (targets.batch_size, len(priors))
    moved = priors.boxes + torch.randn((*shape, 4), generator=generator) * 3
    boxes = torch.cat([moved[..., :2], torch.maximum(moved[..., 2:], moved[..., :2] + 1)], -1)
    classes = int(targets.labels.max()) + 1
    predictions = Predictions(
        logits=torch.randn((*shape, classes), generator=generator),
        deltas=torch.zeros(*shape, 4),
        boxes=boxes,
        quality=torch.randn(shape, generator=generator),
    )
    assignment = TaskAligned(topk=topk, similarity="iou")(priors, targets, predictions)
    score = dict(
        zip(zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()), assignment.score.tolist())
    )
    assert score == pytest.approx(loop(priors, targets, predictions, topk), rel=1e-4)


def loop(priors, targets, predictions, topk) -> dict[tuple[int, int], float]:
    """Score of each pair, box by box and prior by prior in float64."""
    claims: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    for gt, (box, label, image) in enumerate(
        zip(targets.boxes.tolist(), targets.labels.tolist(), targets.image.tolist())
    ):
        rows = []
        for prior, (x, y) in enumerate(priors.centers.tolist()):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                overlap = iou(predictions.boxes[image, prior].tolist(), box)
                chance = torch.sigmoid(predictions.logits[image, prior, label].double())
                chance *= torch.sigmoid(predictions.quality[image, prior].double())
                rows.append((float(chance) ** 0.5 * overlap**6, prior, overlap))
        rows.sort(key=lambda row: (-row[0], row[1]))
        for alignment, prior, overlap in rows[:topk]:
            if alignment > 0:
                claims.setdefault((image, prior), []).append((overlap, gt, alignment))
    kept: dict[int, list[tuple[int, float, float]]] = {}
    for (_, prior), rivals in claims.items():
        overlap, gt, alignment = min(rivals, key=lambda rival: (-rival[0], rival[1]))
        kept.setdefault(gt, []).append((prior, alignment, overlap))
    return {
        (gt, prior): alignment / max(a for _, a, _ in rows) * max(o for _, _, o in rows)
        for gt, rows in kept.items()
        for prior, alignment, _ in rows
    }


def iou(box: list[float], other: list[float]) -> float:
    """Of two xyxy boxes."""
    width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return width * height / (areas - width * height)
