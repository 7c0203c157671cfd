"""Time and memory of label assignment: pairs against the dense form, same inputs, equal results."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from boxmatch.assign import AllGrid, NearbyGrid, SingleGrid
from boxmatch.assign.grid import GridAssigner
from boxmatch.bench.dense import METHODS, count_errors, dense_gt_index
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Targets

YOLO_ANCHORS = [
    [(10, 13), (16, 30), (33, 23)],
    [(30, 61), (62, 45), (59, 119)],
    [(116, 90), (156, 198), (373, 326)],
]
"""COCO-clustered anchors of YOLOv3 in pixels, the default of all systems in this package."""

ASSIGNERS: dict[str, type[GridAssigner]] = {
    "single_grid": SingleGrid,
    "nearby_grid": NearbyGrid,
    "all_grid": AllGrid,
}


@dataclass(frozen=True)
class AssignRow:
    """One line of the benchmark; `dataclasses.asdict` makes it JSON.

    Args:
        milliseconds: median time per image of our assigner, from boxes to pairs.
        cpu_milliseconds: median processor time per image, which other work on the machine hardly disturbs.
        dense_milliseconds: median time for the dense form.
        dense_cpu_milliseconds: its processor time.
        peak_mebibytes: most memory held at once by tensors made during the call, for the whole batch.
        dense_peak_mebibytes: the same for the dense form.
    """

    method: str
    device: str
    threads: int
    boxes_per_image: int
    batch_size: int
    size: int
    positives: int
    milliseconds: float
    cpu_milliseconds: float
    dense_milliseconds: float
    dense_cpu_milliseconds: float
    peak_mebibytes: float
    dense_peak_mebibytes: float


def bench_assign(
    *,
    methods: Sequence[str] = METHODS,
    boxes_per_image: Sequence[int] = (10, 100),
    batch_size: int = 16,
    size: int = 416,
    repeats: int = 20,
    seed: int = 0,
    device: str = "cpu",
) -> list[AssignRow]:
    """Measure every method at every number of boxes, with the threads torch has been given.

    Raises:
        RuntimeError: the two forms disagree on an input, so that comparing their speed would mean nothing.
    """
    grid = AnchorGrid(YOLO_ANCHORS, (8, 16, 32))
    priors = grid([(-(-size // s), -(-size // s)) for s in (8, 16, 32)], device)
    rows = []
    for count in boxes_per_image:
        targets = random_targets(batch_size, count, size, seed).to(device)
        for method in methods:
            rows.append(_bench_method(method, priors, targets, size, repeats))
    return rows


def random_targets(batch_size: int, boxes_per_image: int, size: int, seed: int) -> Targets:
    """Boxes with centres anywhere and sides from 8 pixels to the whole picture, small ones more frequent."""
    generator = torch.Generator().manual_seed(seed)
    total = batch_size * boxes_per_image
    center = torch.rand((total, 2), generator=generator) * size
    side = 8 * (size / 8) ** torch.rand((total, 2), generator=generator)
    boxes = torch.cat([center - side / 2, center + side / 2], 1).clamp(0, size)
    return Targets.from_lists(
        boxes=list(boxes.split(boxes_per_image)),
        labels=[torch.zeros(boxes_per_image, dtype=torch.int64)] * batch_size,
    )


def _bench_method(method: str, priors: Priors, targets: Targets, size: int, repeats: int) -> AssignRow:
    assigner = ASSIGNERS[method]()
    threshold = assigner.match_iou_thres

    def pairs() -> torch.Tensor:
        return assigner(priors, targets).pairs.prior

    def dense() -> torch.Tensor:
        return dense_gt_index(method, priors, targets, threshold)

    gt_index = assigner(priors, targets).gt_index()
    errors = count_errors(method, priors, targets, threshold, gt_index)
    if errors:
        raise RuntimeError(f"{method}: the dense form gives another owner to {errors} priors")
    device, images = targets.boxes.device, targets.batch_size
    wall, cpu = median_milliseconds(pairs, repeats, device)
    dense_wall, dense_cpu = median_milliseconds(dense, max(repeats // 4, 3), device)
    return AssignRow(
        method=method,
        device=device.type,
        threads=torch.get_num_threads(),
        boxes_per_image=len(targets) // images,
        batch_size=images,
        size=size,
        positives=int((gt_index >= 0).sum()),
        milliseconds=wall / images,
        cpu_milliseconds=cpu / images,
        dense_milliseconds=dense_wall / images,
        dense_cpu_milliseconds=dense_cpu / images,
        peak_mebibytes=peak_mebibytes(pairs, device),
        dense_peak_mebibytes=peak_mebibytes(dense, device),
    )


def median_milliseconds(
    function: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Median wall time and processor time of a call, after two that warm up."""
    walls, cpus = [], []
    for turn in range(repeats + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn >= 2:
            walls.append(1000 * (time.perf_counter() - wall))
            cpus.append(1000 * (time.process_time() - cpu))
    return statistics.median(walls), statistics.median(cpus)


def peak_mebibytes(function: Callable[[], object], device: torch.device) -> float:
    """Most memory held at once by what a call allocates.

    On CUDA the allocator's own counter; elsewhere the running sum of the allocations and releases that
    torch's profiler records, those inside operators included.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    # The profiler's own lines about devices it did not find are no results.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda change: change.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
