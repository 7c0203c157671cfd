"""Detections on pictures, and pages of predictions beside the truth."""

import numpy as np
import pytest
import torch
from pictures import count_color, grey

from boxmatch import Detections
from boxmatch.metrics import GroundTruth
from boxmatch.visualize import (
    PageEntry,
    draw_detections,
    draw_predictions_page,
)
from boxmatch.visualize.detections import match_detections
from boxmatch.visualize.palette import ALARM, color


def detections(boxes, scores, labels) -> Detections:
    return Detections(
        torch.tensor(boxes).float().reshape(-1, 4), torch.as_tensor(scores), torch.as_tensor(labels)
    )


def truth(boxes, labels, ignore) -> GroundTruth:
    return GroundTruth(
        torch.tensor(boxes).float().reshape(-1, 4), torch.as_tensor(labels), torch.as_tensor(ignore)
    )


def test_small_pictures_are_enlarged_so_that_names_can_be_read():
    found = detections([[2.0, 2.0, 30.0, 30.0]], [0.9], [1])
    assert draw_detections(grey(64, 48), found, ["a", "b"]).size == (448, 336)
    assert draw_detections(grey(640, 480), found, ["a", "b"]).size == (640, 480)


def test_detections_have_the_color_of_their_class_and_weak_ones_are_left_out():
    found = detections([[50.0, 50.0, 300.0, 300.0], [320.0, 50.0, 390.0, 300.0]], [0.9, 0.2], [1, 2])
    picture = draw_detections(torch.full((3, 400, 400), 90, dtype=torch.uint8), found, "abc", min_score=0.5)
    assert count_color(picture, color(1)) > 500
    assert count_color(picture, color(2)) == 0


def test_a_picture_without_detections_stays_as_it_was():
    found = detections([], torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert np.array_equal(
        np.asarray(draw_detections(grey(400, 300), found, "ab")), np.asarray(grey(400, 300))
    )


def test_a_box_is_found_once_and_by_the_best_score_of_its_class():
    objects = truth([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1], [False, False])
    found = detections([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    hit, right = match_detections(objects, found)
    assert hit.tolist() == [True, False]
    assert right.tolist() == [True, False, False]


def test_a_detection_inside_an_ignore_region_is_no_false_alarm():
    hit, right = match_detections(
        truth([[0, 0, 50, 50]], [0], [True]),
        detections([[5, 5, 20, 20], [60, 60, 70, 70]], [0.9, 0.8], [0, 0]),
    )
    assert not hit.any()
    assert right.tolist() == [True, False]


def test_page_marks_missed_boxes_on_the_left_and_false_alarms_on_the_right():
    good = PageEntry(
        grey(200, 200),
        truth([[20, 20, 90, 90]], [0], [False]),
        detections([[20, 20, 90, 90]], [0.9], [0]),
        "a",
    )
    bad = PageEntry(
        grey(200, 200),
        truth([[20, 20, 90, 90]], [0], [False]),
        detections([[120, 120, 190, 190]], [0.9], [0]),
        "b",
    )
    assert count_color(draw_predictions_page([good], ["cell"]), ALARM) == 0
    page = np.asarray(draw_predictions_page([bad], ["cell"], width=400))
    red = (page == np.array(ALARM)).all(-1)
    middle = 16 + 402
    assert red[:, :middle].sum() > 100
    assert red[:, middle:].sum() > 100


def test_page_leaves_out_weak_predictions_and_needs_a_picture():
    weak = PageEntry(
        grey(), truth([], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)),
        detections([[10, 10, 50, 50]], [0.1], [0]), "weak",
    )  # fmt: skip
    assert count_color(draw_predictions_page([weak], ["cell"], min_score=0.3), ALARM) == 0
    assert count_color(draw_predictions_page([weak], ["cell"], min_score=0.05), ALARM) > 0
    with pytest.raises(ValueError, match="at least one picture"):
        draw_predictions_page([], ["cell"])
