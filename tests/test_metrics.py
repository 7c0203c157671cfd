"""The metric against COCO's own programs and against cases that can be counted by hand."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boxmatch.data.coco import read_coco
from boxmatch.metrics import EvaluationSettings, GroundTruth, MeanPrecision, evaluate, ground_truths
from boxmatch.structures import Detections

NAMES = ("cat", "dog")


def truth(*rows: tuple[float, float, float, float, int], ignore: tuple[int, ...] = ()) -> GroundTruth:
    """Ground truth of a picture from (x1, y1, x2, y2, label) rows; `ignore` numbers the crowd rows."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    flags = torch.zeros(len(rows), dtype=torch.bool)
    flags[list(ignore)] = True
    return GroundTruth(table[:, :4], table[:, 4].long(), flags)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Detections from (x1, y1, x2, y2, score, label) rows."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def random_pictures(count: int, seed: int = 0) -> tuple[dict[int, Detections], dict[int, GroundTruth]]:
    """Pictures with crowds, tied scores and more than 100 detections."""
    random = np.random.default_rng(seed)
    detections, truths = {}, {}
    for number in range(count):
        boxes = random.uniform(0, 300, (int(random.integers(0, 12)), 2))
        boxes = np.concatenate([boxes, boxes + random.uniform(4, 150, boxes.shape)], 1).astype(np.float32)
        labels = random.integers(0, 3, len(boxes))
        crowd = random.random(len(boxes)) < 0.15
        truths[number] = GroundTruth(torch.tensor(boxes), torch.tensor(labels), torch.tensor(crowd))
        wanted = 130 if number == 0 else 25
        pick = random.integers(0, len(boxes), wanted) if len(boxes) else np.zeros(0, int)
        moved = boxes[pick] + random.normal(0, 6, (len(pick), 4)).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = random.integers(1, 20, len(pick)) / 20
        guessed = np.where(random.random(len(pick)) < 0.8, labels[pick], random.integers(0, 3, len(pick)))
        detections[number] = Detections(
            torch.tensor(moved), torch.tensor(scores, dtype=torch.float32), torch.tensor(guessed).long()
        )
    return detections, truths


def test_boxes_found_exactly_give_one():
    result = evaluate({7: found((0, 0, 40, 40, 0.9, 0))}, {7: truth((0, 0, 40, 40, 0))}, NAMES)
    assert result["map"] == result["map_50"] == result["map_75"] == result["map_medium"] == 1.0
    assert result["per_class"]["cat"] == {"map": 1.0, "map_50": 1.0, "boxes": 1}


def test_what_has_no_ground_truth_is_none_and_not_minus_one():
    result = evaluate({7: found((0, 0, 40, 40, 0.9, 1))}, {7: truth((0, 0, 40, 40, 0))}, NAMES)
    assert result["per_class"]["dog"] == {"map": None, "map_50": None, "boxes": 0}
    assert result["map_small"] is None and result["map_large"] is None
    assert result["map"] == 0.0


def test_no_ground_truth_at_all_gives_none():
    for pictures in ({}, {1: truth()}):
        result = evaluate({}, pictures, NAMES)
        assert result["map"] is None and result["map_50"] is None and result["mar"] is None
        assert result["curves"]["precision"] == {}


def test_an_overlap_between_two_thresholds_counts_for_the_lower_ones():
    # 30 of 40 columns: IoU .75, which passes .50 to .75, six of the ten thresholds.
    result = evaluate({0: found((0, 0, 30, 40, 0.9, 0))}, {0: truth((0, 0, 40, 40, 0))}, NAMES)
    assert result["map_50"] == 1.0
    assert result["map"] == pytest.approx(0.6)


def test_a_detection_on_a_crowd_region_costs_nothing():
    pictures = {0: truth((0, 0, 40, 40, 0), (100, 100, 200, 200, 0), ignore=(1,))}
    certain_of_crowd = found((110, 110, 150, 150, 0.95, 0), (0, 0, 40, 40, 0.9, 0))
    assert evaluate({0: certain_of_crowd}, pictures, NAMES)["map"] == 1.0
    assert evaluate({0: certain_of_crowd}, pictures, NAMES)["per_class"]["cat"]["boxes"] == 1
    pictures = {0: truth((0, 0, 40, 40, 0))}
    assert evaluate({0: certain_of_crowd}, pictures, NAMES)["map"] == pytest.approx(0.5)


def test_the_annotated_area_decides_the_size_class():
    picture = truth((0, 0, 40, 40, 0))
    assert evaluate({0: found((0, 0, 40, 40, 0.9, 0))}, {0: picture}, NAMES)["map_medium"] == 1.0
    result = evaluate(
        {0: found((0, 0, 40, 40, 0.9, 0))}, {0: replace(picture, area=torch.tensor([900.0]))}, NAMES
    )
    assert result["map_small"] == 1.0 and result["map_medium"] is None


def test_both_backends_agree_on_crowds_ties_and_crowded_pictures():
    detections, truths = random_pictures(12)
    names = ("a", "b", "c")
    fast = evaluate(detections, truths, names)
    slow = evaluate(detections, truths, names, EvaluationSettings(backend="pycocotools"))
    assert fast["map"] is not None and 0.05 < fast["map"] < 0.95
    for key in ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar"):
        assert fast[key] == pytest.approx(slow[key], abs=1e-6)
    for name in names:
        assert fast["per_class"][name] == pytest.approx(slow["per_class"][name], abs=1e-6)
        assert fast["curves"]["precision"][name] == pytest.approx(slow["curves"]["precision"][name], abs=1e-6)


def test_the_curve_of_a_class_averages_to_its_precision():
    detections, truths = random_pictures(6, seed=1)
    result = evaluate(detections, truths, ("a", "b", "c"))
    curve = result["curves"]["precision"]["b"]
    assert len(curve) == len(result["curves"]["recall"]) == 101
    assert sum(curve) / 101 == pytest.approx(result["per_class"]["b"]["map_50"], abs=1e-6)


def test_the_result_is_plain_json_with_its_settings():
    result = evaluate(
        {}, {1: truth((0, 0, 5, 5, 1))}, NAMES, EvaluationSettings(score_threshold=0.001, nms_iou=0.6)
    )
    stored = json.loads(json.dumps(result, allow_nan=False))
    assert stored["settings"]["backend"] == "faster_coco_eval"
    assert (stored["settings"]["max_detections"], stored["settings"]["nms_iou"]) == (100, 0.6)
    assert "file pixels" in stored["settings"]["coordinates"]


def test_fewer_detections_may_count_than_there_are():
    pictures = {0: truth((0, 0, 40, 40, 0), (50, 50, 90, 90, 0))}
    both = {0: found((0, 0, 40, 40, 0.9, 0), (50, 50, 90, 90, 0.8, 0))}
    assert evaluate(both, pictures, NAMES)["mar"] == 1.0
    assert evaluate(both, pictures, NAMES, EvaluationSettings(max_detections=1))["mar"] == 0.5


def test_settings_that_would_give_minus_one_are_refused():
    with pytest.raises(ValueError, match="pycocotools summarises 100 only"):
        EvaluationSettings(backend="pycocotools", max_detections=300)
    with pytest.raises(ValueError, match="expected 1 or more"):
        EvaluationSettings(max_detections=0)


def test_detections_of_an_unknown_picture_are_refused():
    with pytest.raises(ValueError, match="picture 4: expected ground truth"):
        evaluate({4: found((0, 0, 5, 5, 0.5, 0))}, {1: truth()}, NAMES)


def test_a_label_without_a_name_is_refused():
    with pytest.raises(ValueError, match="ground truth has label 2, expected one below 2"):
        evaluate({}, {1: truth((0, 0, 5, 5, 2))}, NAMES)


def test_a_picture_seen_twice_counts_once():
    once, twice = MeanPrecision(NAMES), MeanPrecision(NAMES)
    detections, pictures = [found((0, 0, 40, 40, 0.9, 0))], [truth((0, 0, 40, 40, 0), (60, 60, 90, 90, 0))]
    once.update([5], detections, pictures)
    for _ in range(2):
        twice.update([5], detections, pictures)
    assert once.compute() == twice.compute()
    once.reset()
    assert once.compute()["pictures"] == 0


def test_results_written_to_a_file_score_the_same_in_cocos_own_program(data_dir: Path, tmp_path: Path):
    source = data_dir / "bccd" / "annotations" / "instances_test.json"
    if not source.is_file():
        pytest.skip(f"no {source}")
    annotations = read_coco(data_dir / "bccd", source.relative_to(data_dir / "bccd"))
    truths = dict(enumerate(ground_truths(annotations, range(len(annotations)))))
    random, detections, rows = np.random.default_rng(3), {}, []
    for number, one in truths.items():
        boxes = one.boxes.numpy() + random.normal(0, 5, one.boxes.shape).astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = random.random(len(boxes)).astype(np.float32)
        detections[number] = Detections(torch.tensor(boxes), torch.tensor(scores), one.labels)
        for box, score, label in zip(boxes.tolist(), scores.tolist(), one.labels.tolist()):
            rows.append(
                {
                    "image_id": int(annotations.image_ids[number]),
                    "category_id": annotations.class_ids[label],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "score": score,
                }
            )
    result = evaluate(detections, truths, annotations.class_names)
    written = tmp_path / "results.json"
    written.write_text(json.dumps(rows))
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(source))
        scored = COCOeval(coco, coco.loadRes(str(written)), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    for key, value in zip(("map", "map_50", "map_75", "map_small", "map_medium", "map_large"), scored.stats):
        assert result[key] == pytest.approx(max(value, 0) if value >= 0 else None, abs=1e-6)
