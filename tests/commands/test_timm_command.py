"""A network of `timm` on the command line."""

import json
from pathlib import Path

import pytest
from typed_commands import failing

from boxmatch.checkpoints import load_detector
from boxmatch.cli import main

pytest.importorskip("timm")

TINY = [
    "--data.image_size=96",
    "--data.batch_size=8",
    "--detector=DenseDetector",
    "--detector.channels=64",
    "--detector.tower_length=1",
    "--trainer.max_epochs=1",
    "--trainer.progress=false",
    "--trainer.tensorboard=false",
]


@pytest.mark.slow
def test_a_network_of_timm_is_trained_and_saved(shapes: Path, tmp_path: Path):
    folder = tmp_path / "run"
    asked = ["--data.root", str(shapes), "--output", str(folder), "--detector.backbone", "timm/resnet10t"]
    assert main(["train", *TINY, *asked]) == 0
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert load_detector(folder / "last.safetensors").architecture["backbone"] == "timm/resnet10t"


def test_an_unknown_network_is_told_with_its_neighbours(shapes: Path, tmp_path: Path, capsys):
    asked = ["--data.root", str(shapes), "--output", str(tmp_path / "run"), "--detector.backbone"]
    code, message = failing(capsys, "train", *TINY, *asked, "timm/resnet10")
    assert code == 2
    assert "did you mean timm/resnet10t" in message
    code, message = failing(capsys, "train", *TINY, *asked, "resnet51")
    assert code == 2
    assert "resnet50" in message and "timm/" in message
