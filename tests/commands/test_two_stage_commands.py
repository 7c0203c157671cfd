"""A two-stage detector through the commands, as a user types them."""

import json
from pathlib import Path

import pytest
from typed_commands import failing

from boxmatch.cli import main

SMALL = [
    "--detector=FasterRCNN",
    "--detector.rpn=paa",
    "--detector.backbone=resnet18",
    "--detector.norm=batch",
    "--detector.frozen_stages=0",
    "--detector.channels=16",
    "--detector.classifier_width=16",
    "--detector.anchor_size=3",
    "--detector.pre_nms_topk=[60,60]",
    "--detector.post_nms_topk=[30,30]",
    "--detector.samples=16",
    "--detector.loss.samples=64",
    "--data.image_size=64",
    "--data.batch_size=8",
    "--trainer.max_epochs=1",
    "--trainer.progress=false",
    "--trainer.tensorboard=false",
]


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `boxmatch train` leaves after one epoch."""
    folder = tmp_path_factory.mktemp("two_stage") / "run"
    assert main(["train", "--data.root", str(shapes), "--output", str(folder), *SMALL]) == 0
    return folder


def test_train_writes_every_term_and_the_assignment(run: Path):
    header = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    terms = {"region_objectness", "region_box", "region_iou", "class", "box"}
    assert {f"loss_{name}" for name in terms} <= set(header)
    assert (run / "assignment.png").is_file() and (run / "predictions.png").is_file()


def test_val_measures_the_run(run: Path, tmp_path: Path):
    arguments = ["val", "--run", str(run), "--output", str(tmp_path), "--score_threshold", "0.01"]
    assert main([*arguments, "--trainer.progress=false"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= metrics["map_50"] <= 1 and metrics["pictures"] == 6


@pytest.mark.parametrize("more", [[], ["--multi_scale", "64,96"]])
def test_predict_finds_boxes_in_pictures(run: Path, shapes: Path, tmp_path: Path, more: list[str]):
    picture = next(shapes.rglob("*.jpg"))
    arguments = ["predict", str(picture), "--run", str(run), "--output", str(tmp_path), "--no_pictures"]
    assert main([*arguments, "--min_score", "0.05", *more]) == 0
    found = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert found and all(one["score"] > 0.05 for one in found)


def test_debug_counts_what_the_first_stage_learns(run: Path, shapes: Path, tmp_path: Path):
    arguments = ["debug", "--run", str(run), "--data.root", str(shapes), "--output", str(tmp_path)]
    assert main([*arguments, "--pictures", "1", "--explain", "1"]) == 0
    report = json.loads((tmp_path / "assignment.json").read_text(encoding="utf-8"))
    assert report["assigner"] == "PAA"
    assert report["levels"] == [f"stride {stride}" for stride in (4, 8, 16, 32, 64)]
    everything = report["per_class"][-1]
    assert everything["positives"] > everything["boxes"] and len(report["per_class"]) == 4
    assert len(list((tmp_path / "pictures").glob("batch0_picture00*.png"))) == 2


def test_export_says_that_it_cannot(run: Path, capsys: pytest.CaptureFixture[str]):
    code, message = failing(capsys, "export", "--run", str(run))
    assert code == 2 and "expected a detector of one stage" in message
