"""Time and memory of a call."""

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

SECONDS = 3.0
"""A measurement is not repeated beyond this, but for two calls at least."""


class Cost(NamedTuple):
    """What a call takes.

    Args:
        milliseconds: on the clock, median of several calls.
        cpu_milliseconds: processor time of all threads, which other work on the machine hardly disturbs.
        peak_mebibytes: most memory held at once by tensors made during the call.
    """

    milliseconds: float
    cpu_milliseconds: float
    peak_mebibytes: float


def cost(function: Callable[[], object], repeats: int, device: torch.device) -> Cost:
    """Time a call after one that warms up, and measure its memory once.

    Args:
        repeats: timed calls at most; slow ones are made less often, see `SECONDS`.
    """
    walls: list[float] = []
    cpus: list[float] = []
    _finish(function, device)
    begin = time.perf_counter()
    while len(walls) < repeats and (len(walls) < 2 or time.perf_counter() - begin < SECONDS):
        wall, cpu = time.perf_counter(), time.process_time()
        _finish(function, device)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return Cost(statistics.median(walls), statistics.median(cpus), peak_mebibytes(function, device))


def _finish(function: Callable[[], object], device: torch.device) -> None:
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
