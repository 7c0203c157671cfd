"""End to end: published dense detectors learn sixteen real pictures by heart, with a plain loop."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from boxmatch import DataModule
from boxmatch.data.batch import collate
from boxmatch.metrics import evaluate, ground_truths
from boxmatch.models import DenseDetector, atss, dual_weight

PICTURES = 16
SIZE = 224


def small(preset: Callable[..., DenseDetector], class_names: tuple[str, ...]) -> DenseDetector:
    """The preset's rule, loss and post-processing on a narrow network that learns from scratch."""
    with torch.device("meta"):
        published = preset(class_names, backbone="resnet18")
    distances = published.architecture["box_numbers"] == "distances"
    return DenseDetector(
        class_names,
        backbone="resnet18",
        norm="batch",
        frozen_stages=0,
        channels=64,
        tower_length=1,
        box_numbers="distances" if distances else "deltas",
        refine="zeros" if published.architecture["refine"] else None,
        anchor_size=2,
        anchor_shift=published.architecture["anchor_shift"],
        assigner=published.assigner,
        loss=published.loss.to_empty(device="cpu") if list(published.loss.buffers()) else published.loss,
        postprocess=published.postprocess,
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", [atss, dual_weight])
def test_a_published_detector_learns_sixteen_pictures_by_heart(preset, data_dir: Path):
    torch.manual_seed(0)
    data = DataModule(str(data_dir / "bccd"), train="train", image_size=SIZE)
    pictures = data.dataset("train")
    batch = collate([pictures.sample(0, index) for index in range(PICTURES)])
    network = small(preset, data.class_names).train()
    for buffer in network.loss.buffers():
        buffer.zero_()
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
