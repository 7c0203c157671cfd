"""A training step taken apart: data, forward, assign, loss, backward, optimiser."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from boxmatch.data.batch import Batch
from boxmatch.models.detector import Detector
from boxmatch.training.ema import average_of, matched_entries, update_average
from boxmatch.training.optimizers import make_optimizer
from boxmatch.training.options import OptimizerOptions

PHASES = ("data", "forward", "assign", "loss", "backward", "optimiser")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PhaseRow:
    """One phase of the training step; `dataclasses.asdict` makes it JSON.

    Args:
        phase: one of PHASES; optimiser includes clearing the gradients and averaging the weights.
        milliseconds: wall time, median over the steps.
        processor_milliseconds: time of all threads of this process, median over the steps; on a busy machine
            the one to look at, on a GPU the time to give it its work.
        share: part of the step: of the processor time on a CPU, of the wall time on a GPU.
        device: cpu or cuda.
        threads: threads that torch was given.
        precision: number format of the network.
        batch_size: pictures per step.
        size: width and height of the pictures.
        boxes: mean number of boxes per picture.
        steps: steps measured, after two that warm up.
    """

    phase: str
    milliseconds: float
    processor_milliseconds: float
    share: float
    device: str
    threads: int
    precision: str
    batch_size: int
    size: tuple[int, int]
    boxes: float
    steps: int


class _Clock:
    """Collects wall and processor time of each phase, and waits for the device where there is one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.processor: dict[str, list[float]] = {phase: [] for phase in PHASES}

    def time(self, phase: str, function: Callable[[], Result]) -> Result:
        """Call the function and add what it took."""
        start = time.perf_counter(), time.process_time()
        result = function()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.wall[phase].append(1000 * (time.perf_counter() - start[0]))
        self.processor[phase].append(1000 * (time.process_time() - start[1]))
        return result


def bench_step(
    detector: Detector,
    batches: Iterable[Batch],
    *,
    steps: int = 10,
    device: str = "cpu",
    precision: Literal["32", "bf16-mixed"] = "32",
    optimizer: OptimizerOptions | None = None,
    average: bool = True,
) -> list[PhaseRow]:
    """Train for a few steps and measure each phase, with the threads torch has been given.

    Args:
        detector: is trained; hand over a copy to keep the weights.
        batches: a loader; it is started again when it ends, which counts as data.
        steps: steps to measure, after two that warm up.
        device: cpu or cuda.
        precision: number format of the network; assignment and loss are always float32.
        optimizer: which optimiser.
        average: keep an average of the weights.

    Raises:
        ValueError: there is no batch, or `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: expected 1 or more, got {steps}")
    place = torch.device(device)
    detector = detector.to(place).train()
    options = optimizer or OptimizerOptions()
    made = make_optimizer(detector, options, rate=1e-4)
    entries = matched_entries(average_of(detector), detector) if average else None
    clock, source, seen = _Clock(place), _endless(batches), []

    def update() -> None:
        made.step()
        made.zero_grad()
        if entries is not None:
            update_average(entries, 0.99)

    for _ in range(steps + 2):
        batch = clock.time("data", lambda: next(source).to(place))
        _step(detector, batch, clock, precision)
        clock.time("optimiser", update)
        seen.append(batch)
    return _rows(clock, seen[2:], place, precision)


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("expected a loader with batches, got none; is the split empty?")


def _step(detector: Detector, batch: Batch, clock: _Clock, precision: str) -> None:
    """Forward, assign, loss and backward, as `Detector.losses` does them."""
    images, targets = batch.images, batch.targets
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        predictions = clock.time("forward", lambda: detector(images))
        priors = detector.priors(images)
        assignment = clock.time("assign", lambda: detector.assign(priors, targets, predictions))

    def loss() -> Tensor:
        terms = detector.loss(priors, targets, predictions, assignment, detector.coder)
        return torch.stack(list(terms.values())).sum()

    total = clock.time("loss", loss)
    clock.time("backward", total.backward)


def _rows(clock: _Clock, batches: list[Batch], device: torch.device, precision: str) -> list[PhaseRow]:
    """Medians of the measured steps, without the two that warm up."""
    wall = {phase: statistics.median(times[2:]) for phase, times in clock.wall.items()}
    processor = {phase: statistics.median(times[2:]) for phase, times in clock.processor.items()}
    counted = wall if device.type == "cuda" else processor
    pictures = sum(len(batch) for batch in batches)
    return [
        PhaseRow(
            phase=phase,
            milliseconds=wall[phase],
            processor_milliseconds=processor[phase],
            share=counted[phase] / max(sum(counted.values()), 1e-9),
            device=device.type,
            threads=torch.get_num_threads(),
            precision=precision,
            batch_size=len(batches[0]),
            size=batches[0].size,
            boxes=sum(len(batch.targets) for batch in batches) / pictures,
            steps=len(batches),
        )
        for phase in PHASES
    ]
