"""Peak memory of a detector, measured in a process of its own.

Run as a module it is that process: it reads a `MemoryTask` as JSON from its only argument and prints the
`DetectorMemory`.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from boxmatch.bench.detector_models import timed_detector
from boxmatch.bench.detector_step import inference, prepare, random_batch, sgd, train_step
from boxmatch.models.dense_backbone import DenseBackboneName

_STATUS = Path("/proc/self/status")
_MACHINE = Path("/proc/meminfo")
_TRAIN_STEPS = 2  # the second has the gradients' and the optimiser's memory from the first one on


@dataclass(frozen=True)
class MemoryTask:
    """What the process does."""

    name: str
    backbone: DenseBackboneName
    height: int
    width: int
    batch_size: int
    boxes: int
    threads: int


@dataclass(frozen=True)
class DetectorMemory:
    """Growth of the resident memory above a process that has imported everything and holds the pictures.

    Args:
        train: in training, MiB: weights, gradients, momentum and what the graph keeps.
        inference: MiB.
    """

    train: float
    inference: float


@lru_cache
def measure_memory(task: MemoryTask) -> DetectorMemory | None:
    """Run one prediction and two training steps in a fresh process; None where the system does not tell.

    A task that was measured is not run again.

    Raises:
        RuntimeError: the process failed; the message has its last line.
    """
    if not _STATUS.exists():
        return None
    command = [sys.executable, "-m", "boxmatch.bench.detector_memory", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(
            f"the process that measures the memory of {task.name} ended with code {done.returncode}: {last}"
        )
    return DetectorMemory(**json.loads(done.stdout))


def available_mebibytes() -> float | None:
    """Memory that new work can have without swapping; None where the system does not tell."""
    return _kibibytes(_MACHINE, "MemAvailable") / 1024 if _MACHINE.exists() else None


def _kibibytes(file: Path, name: str) -> float:
    (line,) = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:")]
    return float(line.split()[1])


def _run(task: MemoryTask) -> DetectorMemory:
    torch.set_num_threads(task.threads)
    images, targets = random_batch((task.height, task.width), task.batch_size, task.boxes)
    # Of this memory image, unlike getrusage's maximum, which a process takes over from the one it came from.
    before = _kibibytes(_STATUS, "VmRSS")
    model = timed_detector(task.name, (task.height, task.width), backbone=task.backbone)
    prepare(model, images[:1])
    inference(model, images)
    inferring = _kibibytes(_STATUS, "VmHWM") - before
    optimiser = sgd(model.module)
    for _ in range(_TRAIN_STEPS):
        train_step(model, images, targets, optimiser)
    training = _kibibytes(_STATUS, "VmHWM") - before
    return DetectorMemory(training / 1024, inferring / 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(_run(MemoryTask(**json.loads(sys.argv[1]))))))
