"""Which number format and how many threads train fastest on this machine."""

import copy
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from boxmatch.data.batch import Batch
from boxmatch.models.detector import Detector

TIMED_STEPS = 2
# More threads are taken only where they clearly pay: on a busy machine they wait for each other.
THREADS_PAY_FROM = 1.3


@dataclass(frozen=True)
class Speed:
    """How to train, and what a step costs then.

    Args:
        precision: number format.
        threads: threads of PyTorch.
        seconds: of one training step; 0 where it was not measured. With one thread it is processor time,
            which other programs disturb little; with more, wall time.
    """

    precision: Literal["32", "bf16-mixed"]
    threads: int
    seconds: float


def find_speed(detector: Detector, batch: Batch) -> Speed:
    """The fastest way to train here.

    Processors with bfloat16 instructions gain up to a factor of three, others lose as much: both are timed.
    A GPU takes bfloat16 where it has it, untimed.

    Args:
        detector: left as it is; a copy is trained for a few steps.
        batch: what a step works on.
    """
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        return Speed("bf16-mixed" if torch.cuda.is_bf16_supported() else "32", threads, 0.0)
    try:
        torch.set_num_threads(1)
        plain, brain = step_time(detector, batch, bfloat16=False), step_time(detector, batch, bfloat16=True)
        bfloat16 = brain.processor < plain.processor
        alone = brain if bfloat16 else plain
        precision: Literal["32", "bf16-mixed"] = "bf16-mixed" if bfloat16 else "32"
        if threads > 1:
            torch.set_num_threads(threads)
            together = step_time(detector, batch, bfloat16=bfloat16)
            if together.wall * THREADS_PAY_FROM < alone.wall:
                return Speed(precision, threads, together.wall)
        return Speed(precision, 1, alone.processor)
    finally:
        torch.set_num_threads(threads)


class StepTime(NamedTuple):
    """Seconds of one step."""

    processor: float
    wall: float


def step_time(detector: Detector, batch: Batch, *, bfloat16: bool) -> StepTime:
    """Least time of forward, loss and backward on the CPU, after a first step that prepares the kernels."""
    trained = copy.deepcopy(detector).to(memory_format=torch.channels_last).train()
    images = batch.images.contiguous(memory_format=torch.channels_last)
    processor, wall = [], []
    for _ in range(1 + TIMED_STEPS):
        start = time.process_time(), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            terms = trained.losses(images, batch.targets)
        torch.stack(list(terms.values())).sum().backward()
        trained.zero_grad()
        processor.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return StepTime(min(processor[1:]), min(wall[1:]))
