"""The recipes of PAA on a region proposal network: the published network and settings."""

from pathlib import Path
from typing import Any

import pytest
import torch

from boxmatch.checkpoints.saved import describe
from boxmatch.commands.parser import SECTIONS, instantiate, parse
from boxmatch.commands.training import train_parser
from boxmatch.models import FasterRCNN, faster_rcnn, paa_faster_rcnn
from boxmatch.strict_yaml import load_yaml
from boxmatch.training.record import plain

FOLDER = Path(__file__).resolve().parents[1] / "recipes" / "paa_rpn"
PRESETS = {"r50_1x": paa_faster_rcnn, "r50_1x_baseline": faster_rcnn}
COCO = [f"class {number}" for number in range(80)]


def parsed(name: str, *more: str) -> Any:
    arguments = ["--config", str(FOLDER / f"{name}.yaml"), "--data.root", "nowhere"]
    return parse(train_parser("train"), [*arguments, "--detector.pretrained", "false", *more])


def built(name: str, *more: str) -> FasterRCNN:
    with torch.device("meta"):
        made: FasterRCNN = instantiate(parsed(name, *more), "detector", class_names=COCO)
    return made


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_builds_the_published_network_and_says_what_to_expect(name: str):
    with torch.device("meta"):
        preset = PRESETS[name](COCO)
    assert plain(describe(built(name))) == plain(describe(preset))
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for field in ("source", "data", "expected", "hardware", "command", "weights"):
        assert f"\n# {field} " in text
    assert {"r50_1x": "39.292", "r50_1x_baseline": "37.989"}[name] in text
    assert f"--config recipes/paa_rpn/{name}.yaml" in text


def test_the_two_differ_in_one_line():
    one, two = (load_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in PRESETS)
    assert one["detector"]["init_args"].pop("rpn") == "paa"
    assert one == two


@pytest.mark.parametrize("name", PRESETS)
def test_the_settings_are_the_published_ones(name: str):
    config = parsed(name)
    data, optimizer, schedule, _, trainer, _ = (instantiate(config, section) for section in SECTIONS)
    assert (optimizer.base_lr, optimizer.reference_batch_size, data.batch_size) == (0.02, 16, 16)
    assert (schedule.milestones, trainer.max_steps) == ((60_000, 80_000), 90_000)
    assert (data.resize.short_side, data.resize.train_short_side) == (800, (640, 800))


def test_parts_of_a_recipe_can_be_changed_by_their_names():
    changed = built(
        "r50_1x", "--detector.loss.samples=128", "--detector.assigner=ATSS", "--detector.bias_free_fpn=true"
    )
    assert changed.loss.samples == 128 and type(changed.assigner).__name__ == "ATSS"
    assert changed.head.iou is not None
    assert all(not name.endswith("bias") for name, _ in changed.fpn.named_parameters())
    assert built("r50_1x", "--detector.postprocess.nms_iou=0.6").postprocess.score_threshold == 0.05
