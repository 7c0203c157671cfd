"""`boxmatch val`: the same figures as in training, and other settings."""

import json
from pathlib import Path

import pytest
from typed_commands import failing

from boxmatch.cli import main


def test_val_measures_a_run_as_its_training_did(run_folder: Path, tmp_path: Path, capsys):
    assert main(["val", "--run", str(run_folder), "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    trained = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))["best"]
    assert result["map"] == pytest.approx(trained["map"], abs=1e-6)
    assert result["settings"]["nms_iou"] == 0.6
    assert "nms_iou 0.6" in text


def test_val_takes_a_weight_file_another_split_and_other_thresholds(run_folder: Path, tmp_path: Path, capsys):
    weights = str(run_folder / "best.safetensors")
    arguments = ["--split", "train", "--nms_iou", "0.4", "--max_detections", "7", "--output", str(tmp_path)]
    assert main(["val", "--weights", weights, *arguments]) == 0
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert result["pictures"] == 16
    assert result["settings"]["nms_iou"] == 0.4
    code, message = failing(capsys, "val", "--run", str(run_folder), "--split", "tset")
    assert code == 2
    assert "train, val or test" in message


def test_the_table_leaves_out_classes_without_a_box_and_counts_them():
    from boxmatch.commands.results import evaluation_table

    nothing = {"boxes": 0, "map_50": None, "map": None}
    result = {
        "per_class": {"cat": {"boxes": 2, "map_50": 0.5, "map": 0.25}, "cow": nothing, "emu": nothing},
        "boxes": 2,
        "map_50": 0.5,
        "map": 0.25,
        "pictures": 3,
        "settings": {"max_detections": 100},
    }
    lines = evaluation_table(result).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["cat", "all"]
    assert lines[-1] == "2 classes have no box here and are not listed"
