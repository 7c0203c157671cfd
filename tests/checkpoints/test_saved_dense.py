"""Dense detectors, and every assigner, saved and built again."""

import json
import sys
from pathlib import Path

import pytest
import torch

from boxmatch.checkpoints import load_detector, save_detector
from boxmatch.checkpoints.saved import build_part, describe, describe_part
from boxmatch.models import DenseDetector, atss, dual_weight, dynamic_atss, fcos, paa, retinanet

sys.path.append(str(Path(__file__).resolve().parents[1] / "assign"))
from every_assigner import EVERY_ASSIGNER


@pytest.mark.parametrize("preset", [dual_weight, pytest.param(paa, marks=pytest.mark.slow)])
def test_a_preset_comes_back_and_says_the_same(preset, tmp_path):
    detector: DenseDetector = preset(["a", "b"], backbone="resnet18").eval()
    again = load_detector(save_detector(detector, tmp_path))
    images = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = detector(images), again(images)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.boxes, theirs.boxes)


@pytest.mark.parametrize("preset", [atss, dynamic_atss, paa, dual_weight, retinanet, fcos])
def test_the_parts_of_a_preset_come_back(preset):
    with torch.device("meta"):
        detector: DenseDetector = preset(["a", "b"], backbone="resnet18")
    described = json.loads(json.dumps(describe(detector)))
    for kind in ("assigner", "coder", "loss", "postprocess"):
        assert repr(build_part(kind, described[kind])) == repr(getattr(detector, kind))


@pytest.mark.parametrize("name", EVERY_ASSIGNER)
def test_any_assigner_comes_back_with_its_options(name):
    assigner = EVERY_ASSIGNER[name]()
    again = build_part("assigner", json.loads(json.dumps(describe_part("assigner", assigner))))
    assert repr(again) == repr(assigner)
    assert type(again) is type(assigner)
