"""Detectors that learn a few pictures by heart, with a plain loop."""

import torch

from boxmatch import DataModule
from boxmatch.data.batch import collate
from boxmatch.metrics import evaluate, ground_truths
from boxmatch.models.detector import Detector


def learn_by_heart(
    network: Detector,
    data: DataModule,
    *,
    pictures: int,
    steps: int,
    rate: float = 2e-3,
    clip: float | None = 10.0,
) -> float:
    """AP@0.5 on the first pictures of the training split, after so many steps on all of them at once.

    Args:
        clip: greatest norm of a gradient.
    """
    split = data.dataset("train")
    batch = collate([split.sample(0, index) for index in range(pictures)])
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        loss = torch.stack(list(network.losses(batch.images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        schedule.step()
    detections = dict(enumerate(batch.restore(network.predict(batch.images))))
    truth = dict(enumerate(ground_truths(data.annotations("train"), range(pictures))))
    return float(evaluate(detections, truth, data.class_names)["map_50"])
