"""Rows of predictions for lists of pairs."""

import pytest
import torch

from boxmatch.assign.take import by_column, class_logits, places, predicted_boxes, quality_logits
from boxmatch.structures import Pairs, Predictions, Targets

TARGETS = Targets.from_lists([[[0.0, 0.0, 4.0, 4.0]], [[0.0, 0.0, 8.0, 8.0]]], [[2], [0]])
PAIRS = Pairs(torch.tensor([0, 0, 1]), torch.tensor([1, 4, 3]))


def predictions() -> Predictions:
    """Two images, five priors, three classes; logits and boxes are views of maps (B, C, P), as in heads."""
    random = torch.Generator().manual_seed(0)
    logits, boxes = (torch.randn((2, channels, 5), generator=random).transpose(1, 2) for channels in (3, 4))
    return Predictions(logits, torch.zeros(2, 5, 4), boxes, torch.randn((2, 5), generator=random))


@pytest.mark.parametrize("length", [1, 100])  # few pairs and many: the boxes are turned or are not
def test_rows_are_those_of_image_and_prior_however_they_are_laid_out(length):
    given = predictions()
    laid_out = by_column(given, torch.full((2,), length))
    assert laid_out.logits.is_contiguous()
    for some in (given, laid_out):
        place = places(PAIRS, TARGETS, 5)
        assert place.tolist() == [1, 4, 8]
        image = TARGETS.image[PAIRS.gt]
        assert torch.equal(predicted_boxes(some, place, "X"), given.boxes[image, PAIRS.prior])
        assert torch.equal(quality_logits(some, place), given.quality[image, PAIRS.prior])
        logits = class_logits(some, place, PAIRS, TARGETS)
        assert torch.equal(logits, given.logits[image, PAIRS.prior, torch.tensor([2, 2, 0])])


def test_predictions_without_boxes_keep_having_none():
    given = Predictions(torch.zeros(1, 5, 3), torch.zeros(1, 5, 4))
    assert by_column(given, torch.tensor([100])).boxes is None
    assert quality_logits(given, torch.tensor([0])) is None
