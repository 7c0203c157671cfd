"""End to end: Faster R-CNN with either rule learns a few drawn pictures by heart, with a plain loop."""

from pathlib import Path

import pytest
import torch
from by_heart import learn_by_heart

from boxmatch import DataModule
from boxmatch.data.shapes import draw_shapes
from boxmatch.models import FasterRCNN

PICTURES, SIZE, STEPS = 4, 96, 200


@pytest.mark.slow
@pytest.mark.parametrize("rpn", ["paa", "max_iou"])
def test_a_two_stage_detector_learns_four_pictures_by_heart(rpn: str, tmp_path: Path):
    torch.manual_seed(0)
    data = DataModule(
        str(draw_shapes(tmp_path / "shapes", train=PICTURES, val=1, size=SIZE)), image_size=SIZE
    )
    network = FasterRCNN(
        data.class_names,
        rpn=rpn,
        backbone="resnet18",
        norm="batch",
        frozen_stages=0,
        channels=32,
        classifier_width=64,
        anchor_size=3,
        pre_nms_topk=(200, 200),
        post_nms_topk=(100, 100),
        samples=64,
    )
    assert learn_by_heart(network, data, pictures=PICTURES, steps=STEPS) >= 0.9
