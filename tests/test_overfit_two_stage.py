"""End to end: Faster R-CNN with either rule learns a few drawn pictures by heart, with a plain loop."""

from pathlib import Path

import pytest
import torch

from boxmatch import DataModule
from boxmatch.data.batch import collate
from boxmatch.data.shapes import draw_shapes
from boxmatch.metrics import evaluate, ground_truths
from boxmatch.models import FasterRCNN

PICTURES, SIZE, STEPS = 4, 96, 200


@pytest.mark.slow
@pytest.mark.parametrize("rpn", ["paa", "max_iou"])
def test_a_two_stage_detector_learns_four_pictures_by_heart(rpn: str, tmp_path: Path):
    torch.manual_seed(0)
    data = DataModule(
        str(draw_shapes(tmp_path / "shapes", train=PICTURES, val=1, size=SIZE)), image_size=SIZE
    )
    pictures = data.dataset("train")
    batch = collate([pictures.sample(0, index) for index in range(PICTURES)])
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
    ).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        loss = torch.stack(list(network.losses(batch.images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    detections = dict(enumerate(batch.restore(network.predict(batch.images))))
    truth = dict(enumerate(ground_truths(data.annotations("train"), range(PICTURES))))
    assert evaluate(detections, truth, data.class_names)["map_50"] >= 0.9
