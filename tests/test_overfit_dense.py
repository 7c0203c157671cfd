"""End to end: published dense detectors learn sixteen real pictures by heart, with a plain loop."""

from pathlib import Path

import pytest
import torch

from boxmatch import DataModule
from boxmatch.data.batch import collate
from boxmatch.metrics import evaluate, ground_truths
from boxmatch.models import atss, dual_weight

PICTURES = 16
SIZE = 224


# The preset's rule, loss and post-processing on a narrow network that learns from scratch.
SMALL = {
    "backbone": "resnet18",
    "norm": "batch",
    "norm_eps": 1e-5,
    "stride_in_1x1": False,
    "frozen_stages": 0,
    "channels": 64,
    "tower_length": 1,
    "anchor_size": 2,
    "input_norm": "torchvision",
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", [atss, dual_weight])
def test_a_published_detector_learns_sixteen_pictures_by_heart(preset, data_dir: Path):
    torch.manual_seed(0)
    data = DataModule(str(data_dir / "bccd"), train="train", image_size=SIZE)
    pictures = data.dataset("train")
    batch = collate([pictures.sample(0, index) for index in range(PICTURES)])
    network = preset(data.class_names, **SMALL).train()
    steps = 120
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        loss = torch.stack(list(network.losses(batch.images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    detections = dict(enumerate(batch.restore(network.predict(batch.images))))
    truth = dict(enumerate(ground_truths(data.annotations("train"), range(PICTURES))))
    assert evaluate(detections, truth, data.class_names)["map_50"] >= 0.9
