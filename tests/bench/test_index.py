"""Indexing a large COCO file: the benchmark works, and keeps its promise."""

import pytest

from boxmatch.bench.index import measure_index, write_coco
from boxmatch.data.load import load_splits


@pytest.mark.parametrize("segmentation", [False, True])
def test_the_generated_file_is_a_valid_data_set(tmp_path, segmentation):
    file = tmp_path / "annotations/instances_train.json"
    write_coco(file, pictures=50, objects=400, segmentation=segmentation)
    splits, report = load_splits(tmp_path, {"train": None}, pictures="skip")
    assert (len(splits["train"]), len(splits["train"].labels), len(report.class_names)) == (50, 400, 80)
    assert report.errors == 0


@pytest.mark.slow
@pytest.mark.parametrize("segmentation", [False, True])
def test_a_file_of_the_size_of_coco_is_indexed_and_checked_in_20_s_and_800_mb(segmentation):
    cost = measure_index(segmentation=segmentation)
    assert (cost.pictures, cost.objects, cost.errors) == (120_000, 860_000, 0)
    assert cost.cpu_seconds <= 20  # processor time: other work on the machine must not fail the test
    assert cost.peak_mb <= 800
