"""Training step and inference of whole detectors, taken apart and beside torchvision's."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from boxmatch.bench.detector_memory import MemoryTask, available_mebibytes, measure_memory
from boxmatch.bench.detector_models import TimedDetector, timed_detector
from boxmatch.bench.detector_step import inference, prepare, random_batch, sgd, train_step
from boxmatch.bench.phase_clock import Times
from boxmatch.models.dense_backbone import DenseBackboneName

TRAIN_PHASES = ("forward", "assign", "loss", "backward", "optimiser")
INFERENCE_PHASES = ("network", "postprocess")
REFERENCE = "torchvision fcos"

_WEIGHT_COPIES = 3  # the weights, their gradients, their momentum
_SPARE = 0.85  # part of the free memory that a measurement may take: others work on the machine too
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class DetectorRow:
    """A detector at one size and batch; `dataclasses.asdict` makes it JSON.

    Times are per picture, medians over the rounds. Ratios compare processor time with that of torchvision's
    FCOS in the same round, and are medians as well.

    Args:
        model: one of `OURS` or `THEIRS`.
        backbone: of all models.
        height: of the pictures in pixels.
        width: of the pictures in pixels.
        batch_size: pictures at a time.
        boxes: per picture.
        threads: threads that torch was given.
        rounds: how often each model was measured, after one round that warms up.
        forward: checks, normalisation and network in training mode.
        assign: which place learns which box.
        loss: all terms.
        backward: gradients of all weights.
        optimiser: SGD with momentum, gradients cleared.
        step: all five.
        assign_loss_share: assignment and loss in the step, of processor time.
        step_ratio: step / that of torchvision's FCOS; None where that was not measured.
        network: checks, normalisation and network in evaluation mode.
        postprocess: predictions to detections.
        inference: both.
        vote_share: what voting adds to the inference without it; None for models that do not vote.
        inference_ratio: inference / that of torchvision's FCOS.
        detections: per picture.
        train_mebibytes: peak of the resident memory in training, of the whole batch, in a process of its own.
        inference_mebibytes: likewise in inference.
        note: why there are no figures.
    """

    model: str
    backbone: DenseBackboneName
    height: int
    width: int
    batch_size: int
    boxes: int
    threads: int
    rounds: int
    forward: Times | None = None
    assign: Times | None = None
    loss: Times | None = None
    backward: Times | None = None
    optimiser: Times | None = None
    step: Times | None = None
    assign_loss_share: float | None = None
    step_ratio: float | None = None
    network: Times | None = None
    postprocess: Times | None = None
    inference: Times | None = None
    vote_share: float | None = None
    inference_ratio: float | None = None
    detections: float | None = None
    train_mebibytes: float | None = None
    inference_mebibytes: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Round:
    """One model in one round: what each phase took for the whole batch, and the objects found on it."""

    phases: dict[str, Times]
    detections: int

    def sum(self, names: Sequence[str]) -> Times:
        return sum((self.phases[name] for name in names), start=Times(0.0, 0.0))

    @property
    def step(self) -> Times:
        return self.sum(TRAIN_PHASES)

    @property
    def inference(self) -> Times:
        return self.sum(INFERENCE_PHASES)


def bench_detector(
    names: Sequence[str],
    size: tuple[int, int],
    batch_size: int,
    *,
    boxes: int = 7,
    rounds: int = 5,
    backbone: DenseBackboneName = "resnet50",
    measured: Callable[[str], None] = lambda what: None,
) -> list[DetectorRow]:
    """Measure detectors in turn, round after round, so that noise of the machine meets all of them alike.

    Every model of a size has the same pictures, boxes, backbone and threads, and as many candidates for
    detections; see `random_scores`. A batch that would not fit into the free memory is left out with a note.

    Args:
        names: among `OURS` and `THEIRS`.
        size: (height, width) of the pictures in pixels, multiples of 32.
        batch_size: pictures at a time.
        boxes: per picture; 7 is the mean of COCO.
        rounds: training steps and predictions of each model, after one that warms up.
        backbone: of all of them.
        measured: told what was just measured: 2 + `rounds` times per model.

    Raises:
        ValueError: a side is no multiple of 32, or a number is below 1.
    """
    if any(side % 32 or side < 32 for side in size):
        raise ValueError(f"size: expected multiples of 32, for all models to see the same maps, got {size}")
    if min(batch_size, boxes, rounds) < 1:
        raise ValueError(f"expected 1 or more, got {batch_size=}, {boxes=}, {rounds=}")
    models = {name: timed_detector(name, size, backbone=backbone) for name in names}
    threads = torch.get_num_threads()
    blank = [
        DetectorRow(name, backbone, *size, batch_size, boxes, threads, rounds)
        for name in dict.fromkeys(names)
    ]
    rows = []
    for row in blank:
        rows.append(_with_memory(row, models))
        measured(f"memory of {row.model}")
    running = {row.model: models[row.model] for row in rows if row.note is None}
    seen = _in_turns(running, size, batch_size, boxes, rounds, measured)
    return [_with_times(row, seen) if row.note is None else row for row in rows]


def _in_turns(
    models: dict[str, TimedDetector],
    size: tuple[int, int],
    batch_size: int,
    boxes: int,
    rounds: int,
    measured: Callable[[str], None],
) -> dict[str, list[_Round]]:
    """The rounds of each model, without the one that warms up."""
    images, targets = random_batch(size, batch_size, boxes)
    for model in models.values():
        prepare(model, images[:1])
    optimisers = {name: sgd(model.module) for name, model in models.items()}
    seen: dict[str, list[_Round]] = {name: [] for name in models}
    for number in range(rounds + 1):
        # Back and forth: none always runs after the same other one.
        for name, model in models.items() if number % 2 else reversed(models.items()):
            training = train_step(model, images, targets, optimisers[name])
            inferring, counts = inference(model, images)
            if number:
                seen[name].append(_Round(training | inferring, sum(counts)))
            measured(f"{name}, {'warm-up' if number == 0 else f'round {number} of {rounds}'}")
    return seen


def _with_memory(row: DetectorRow, models: Mapping[str, TimedDetector]) -> DetectorRow:
    """The row with its memory, or with a note if the batch would not fit beside the weights of all models."""
    task = MemoryTask(row.model, row.backbone, row.height, row.width, row.batch_size, row.boxes, row.threads)
    if row.batch_size > 1:
        one, free = measure_memory(replace(task, batch_size=1)), available_mebibytes()
        weights = {name: _weight_mebibytes(model) for name, model in models.items()}
        if one is not None and free is not None:
            needed = sum(weights.values()) + row.batch_size * (one.train - weights[row.model])
            if needed > _SPARE * free:
                return replace(
                    row, note=f"left out: needs about {needed:.0f} MiB, of which {free:.0f} MiB are free"
                )
    memory = measure_memory(task)
    if memory is None:
        return row
    return replace(row, train_mebibytes=memory.train, inference_mebibytes=memory.inference)


def _weight_mebibytes(model: TimedDetector) -> float:
    """Of the weights, their gradients and their momentum."""
    copies = [
        weight.nbytes * (_WEIGHT_COPIES if weight.requires_grad else 1)
        for weight in model.module.parameters()
    ]
    return sum(copies) / _MEBIBYTE


def _with_times(row: DetectorRow, seen: Mapping[str, list[_Round]]) -> DetectorRow:
    mine, reference = seen[row.model], seen.get(REFERENCE, [])
    parts = {name: [turn.phases[name] for turn in mine] for name in (*TRAIN_PHASES, *INFERENCE_PHASES)}
    whole = {"step": [turn.step for turn in mine], "inference": [turn.inference for turn in mine]}
    times: dict[str, Any] = {
        name: _median(values).per(row.batch_size) for name, values in (parts | whole).items()
    }
    shares = [turn.sum(("assign", "loss")).processor / turn.step.processor for turn in mine]
    beside = list(zip(mine, reference, strict=True)) if reference else []
    without = [turn.phases["without_votes"] for turn in mine if "without_votes" in turn.phases]
    votes = [
        (turn.phases["postprocess"] - plain).processor / (turn.phases["network"] + plain).processor
        for turn, plain in zip(mine, without, strict=False)
    ]
    return replace(
        row,
        **times,
        assign_loss_share=statistics.median(shares),
        step_ratio=_ratio([(turn.step, other.step) for turn, other in beside]),
        inference_ratio=_ratio([(turn.inference, other.inference) for turn, other in beside]),
        vote_share=statistics.median(votes) if votes else None,
        detections=statistics.median(turn.detections for turn in mine) / row.batch_size,
    )


def _median(times: Sequence[Times]) -> Times:
    return Times(
        statistics.median(time.wall for time in times), statistics.median(time.processor for time in times)
    )


def _ratio(pairs: Sequence[tuple[Times, Times]]) -> float | None:
    if not pairs:
        return None
    return statistics.median(mine.processor / other.processor for mine, other in pairs)
