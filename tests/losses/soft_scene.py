"""Small soft assignments and predictions in float64 for the tests of dual weighting and AutoAssign."""

from dataclasses import replace

import torch

from boxmatch.priors import PointGrid, Priors
from boxmatch.structures import Predictions, Targets

CLASSES = 3


def points(center: float = 0.5) -> Priors:
    """Strides 8 and 16 over 40 × 56 pixels."""
    return PointGrid((8, 16), center=center)([(5, 7), (3, 4)])


def crowded_targets(ignore: bool = False) -> Targets:
    """Three images, the second without boxes; overlapping boxes of one class and of several.

    Args:
        ignore: add a region with two points of the finer grid and none inside a box.
    """
    boxes = [
        [[2.0, 3.0, 38.0, 30.0], [10.0, 5.0, 44.0, 34.0], [20.0, 8.0, 30.0, 20.0], [41.0, 30.0, 43.0, 31.0]],
        [],
        [[0.0, 0.0, 56.0, 40.0], [5.0, 6.0, 30.0, 31.0]],
    ]
    labels, regions = [[0, 0, 1, 2], [], [2, 2]], [[False] * 4, [], [False] * 2]
    if ignore:
        boxes[0].insert(1, [47.0, 0.0, 56.0, 16.0])
        labels[0].insert(1, 1)
        regions[0].insert(1, True)
    return Targets.from_lists(boxes, labels, regions)


def half_trained(priors: Priors, targets: Targets, seed: int = 0, quality: bool = True) -> Predictions:
    """Predictions of float64 leaves: where a prior lies in a box, about that box."""
    random = torch.Generator().manual_seed(seed)
    shape = (targets.batch_size, len(priors))
    reach = torch.rand((*shape, 4), generator=random) * 20 + 2
    boxes = torch.cat((priors.centers - reach[..., :2], priors.centers + reach[..., 2:]), -1)
    inside = priors.inside(targets)
    noise = torch.rand((len(inside), 4), generator=random) * 4 - 2
    boxes[targets.image[inside.gt], inside.prior] = targets.boxes[inside.gt] + noise
    return Predictions(
        logits=torch.randn((*shape, CLASSES), generator=random).double().requires_grad_(),
        deltas=torch.zeros((*shape, 4)),
        boxes=boxes.double().requires_grad_(),
        quality=torch.randn(shape, generator=random).double().requires_grad_() if quality else None,
    )


def single(predictions: Predictions) -> Predictions:
    """The same values in float32, as leaves."""
    boxes, quality = predictions.boxes, predictions.quality
    return replace(
        predictions,
        logits=predictions.logits.detach().float().requires_grad_(),
        boxes=None if boxes is None else boxes.detach().float().requires_grad_(),
        quality=None if quality is None else quality.detach().float().requires_grad_(),
    )


def leaves(predictions: Predictions) -> list[torch.Tensor]:
    """What gradients are asked for."""
    parts = (predictions.logits, predictions.boxes, predictions.quality)
    return [part for part in parts if part is not None]
