"""A small batch for the tests of the YOLO loss."""

import torch
from torch import Tensor

from boxmatch.assign import NearbyGrid
from boxmatch.coders import GridCoder
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

CODER = GridCoder("nearby_grid")


def three_levels(height: int = 64, width: int = 96) -> Priors:
    """Levels of 8, 16 and 32 px with two anchors per cell, a non-square input."""
    grid = AnchorGrid([[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(116, 90), (70, 70)]], [8, 16, 32])
    return grid([(height // s, width // s) for s in (8, 16, 32)], torch.device("cpu"))


def scene(classes: int = 3, seed: int = 0) -> tuple[Priors, Targets, Predictions, Assignment]:
    """Three images, the middle one without boxes; positives on every level."""
    priors = three_levels()
    targets = Targets.from_lists(
        [[[4, 6, 20, 30], [30, 8, 90, 60]], [], [[10, 10, 40, 50], [50, 20, 60, 34], [0, 0, 90, 62]]],
        [[0, classes - 1], [], [0, classes - 1, 0]],
    )
    random = torch.Generator().manual_seed(seed)
    predictions = Predictions(
        logits=torch.randn((3, len(priors), classes), generator=random).requires_grad_(),
        deltas=(0.3 + 0.3 * torch.randn((3, len(priors), 4), generator=random)).requires_grad_(),
        quality=(torch.randn((3, len(priors)), generator=random) - 1).requires_grad_(),
    )
    assignment = NearbyGrid(match_iou_thres=0.1)(priors, targets)
    assert torch.bincount(assignment.level, minlength=3).min() > 0
    return priors, targets, predictions, assignment


def nobody(priors: Priors, batch: int) -> tuple[Targets, Assignment]:
    """A batch without boxes."""
    targets = Targets.from_lists([[]] * batch, [[]] * batch)
    none = torch.zeros(0, dtype=torch.int64)
    return targets, Assignment.hard(Pairs(none, none), targets, len(priors), levels=priors.levels)


def leaves(predictions: Predictions) -> list[Tensor]:
    assert predictions.quality is not None
    return [predictions.logits, predictions.deltas, predictions.quality]


def floats(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in terms.items()}
