"""Fewer detections of several classes on one object: options of `DensePostProcess`, also when exported."""

from dataclasses import replace

import pytest
import torch

from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.export.finish import finish
from boxmatch.structures import Level, Predictions

SIZE = (100, 100)
PLAIN = DensePostProcess(fusion="class", nms_iou=0.5)


def predictions(boxes: list[list[float]], probability: list[list[float]]) -> Predictions:
    logits = torch.logit(torch.tensor(probability))[None]
    return Predictions(logits, torch.zeros(1, len(boxes), 4), torch.tensor(boxes)[None])


SAME, SHIFTED, AWAY = [10.0, 10.0, 30.0, 30.0], [11.0, 10.0, 31.0, 30.0], [60.0, 60.0, 80.0, 80.0]
TWO_ON_ONE = predictions([SAME, SHIFTED, AWAY], [[0.9, 0.6], [0.2, 0.8], [0.3, 0.4]])


def found(options: DensePostProcess, given: Predictions = TWO_ON_ONE) -> list[tuple[float, int]]:
    (one,) = options(given, SIZE)
    return [(round(score, 3), label) for score, label in zip(one.scores.tolist(), one.labels.tolist())]


def test_by_default_a_prior_may_be_detected_as_several_classes():
    assert found(PLAIN) == [(0.9, 0), (0.8, 1), (0.4, 1), (0.3, 0)]


def test_classes_suppress_each_other_on_demand():
    assert found(replace(PLAIN, class_agnostic_nms=True)) == [(0.9, 0), (0.4, 1)]


def test_a_prior_has_its_best_class_only_on_demand_and_of_equal_ones_the_first():
    assert found(replace(PLAIN, single_label_per_point=True)) == [(0.9, 0), (0.8, 1), (0.4, 1)]
    assert found(replace(PLAIN, single_label_per_point=True), predictions([SAME], [[0.7, 0.7]])) == [(0.7, 0)]


def test_other_classes_of_a_prior_take_no_place_among_the_best_of_a_level():
    few = replace(PLAIN, pre_nms_topk=2)
    assert found(few) == [(0.9, 0), (0.8, 1)]
    given = predictions([SAME, AWAY], [[0.9, 0.8], [0.7, 0.1]])
    assert found(few, given) == [(0.9, 0), (0.8, 1)]
    assert found(replace(few, single_label_per_point=True), given) == [(0.9, 0), (0.7, 0)]


@pytest.mark.parametrize("fusion", ["product", "sqrt"])
@pytest.mark.parametrize("agnostic, single", [(True, False), (False, True), (True, True)])
def test_the_exported_form_finds_the_same(fusion: str, agnostic: bool, single: bool):
    random = torch.Generator().manual_seed(0)
    low = torch.rand((2, 80, 2), generator=random) * 60
    boxes = torch.cat((low, low + 5 + torch.rand((2, 80, 2), generator=random) * 30), 2)
    given = Predictions(
        torch.randn((2, 80, 3), generator=random), torch.zeros(2, 80, 4), boxes, torch.ones(2, 80)
    )
    options = DensePostProcess(
        fusion=fusion, class_agnostic_nms=agnostic, single_label_per_point=single, vote_sigma=0.025
    )
    levels = (Level(8, 8, 8, 1), Level(4, 4, 16, 1))
    expected = options(given, SIZE, levels)
    limits = torch.tensor([100.0, 100.0, 100.0, 100.0])
    found_boxes, scores, labels, image = finish(options, boxes, given.logits, given.quality, limits, [64, 16])
    assert sum(map(len, expected)) > 10
    for number, one in enumerate(expected):
        assert torch.equal(labels[image == number], one.labels)
        torch.testing.assert_close(scores[image == number], one.scores)
        torch.testing.assert_close(found_boxes[image == number], one.boxes)
