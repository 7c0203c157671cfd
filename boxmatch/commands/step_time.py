"""Which number format trains faster on this machine."""

import copy
import time
from typing import Literal

import torch

from boxmatch.data.batch import Batch
from boxmatch.models.detector import Detector

Precision = Literal["32", "bf16-mixed"]
TIMED_STEPS = 2


def fastest_precision(detector: Detector, batch: Batch) -> tuple[Precision, float]:
    """The faster of float32 and bfloat16, and the seconds of one training step in it.

    Processors with bfloat16 instructions gain up to a factor of three, others lose as much: both are timed.
    A GPU takes bfloat16 where it has it, untimed.

    Args:
        detector: left as it is; a copy is trained for a few steps.
        batch: what a step works on.
    """
    if torch.cuda.is_available():
        return ("bf16-mixed" if torch.cuda.is_bf16_supported() else "32"), 0.0
    plain, brain = step_seconds(detector, batch, bfloat16=False), step_seconds(detector, batch, bfloat16=True)
    return ("bf16-mixed", brain) if brain < plain else ("32", plain)


def step_seconds(detector: Detector, batch: Batch, *, bfloat16: bool) -> float:
    """Shortest time of forward, loss and backward on the CPU, after a first step that prepares the kernels."""
    trained = copy.deepcopy(detector).to(memory_format=torch.channels_last).train()
    images = batch.images.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            terms = trained.losses(images, batch.targets)
        torch.stack(list(terms.values())).sum().backward()
        trained.zero_grad()
        times.append(time.perf_counter() - start)
    return min(times[1:])
