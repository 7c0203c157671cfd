"""Learning rate and momentum of every optimiser step, as functions of the step alone."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from boxmatch.training.options import ScheduleOptions


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def position(step: int, total: int, warmup: float) -> tuple[bool, float]:
    """Whether step `step` of `total` still warms up, and the part in [0, 1] of that phase that is done.

    The peak is at step `warmup` − 1, and the last step (`total` − 1) ends the second phase, as in PyTorch's
    OneCycleLR; a warm-up as long as the run or longer peaks on the last step; steps past the end stay there.
    """
    last = max(total - 1, 1)
    peak = min(warmup - 1, last)
    if peak > 0 and step <= peak:
        return True, step / peak
    begin = max(peak, 0)
    return False, min((step - begin) / (last - begin), 1.0) if last > begin else 1.0


def rate_factor(options: ScheduleOptions, step: int, total: int, warmup: float) -> float:
    """Learning rate of a step as a part of the peak rate.

    Args:
        options: shape of the schedule.
        step: optimiser step, from 0.
        total: optimiser steps of the whole run.
        warmup: steps of warm-up, fractions allowed.
    """
    if options.warmup == "constant" and step < warmup:
        return options.start_fraction
    rising, part = position(step, total, warmup)
    if rising:
        rise = _cosine if options.name == "one_cycle" else _linear
        return rise(options.start_fraction, 1.0, part)
    if options.name == "step":
        passed = (step >= (m if m > 1 else m * total) for m in options.milestones)
        return options.gamma ** sum(passed)
    fall = _linear if options.name == "linear" else _cosine
    return fall(1.0, options.final_fraction, part)


def momentum(options: ScheduleOptions, step: int, total: int, warmup: float) -> float | None:
    """Momentum of a step, or None where the schedule leaves the optimiser's own."""
    if options.name != "one_cycle" or not options.cycle_momentum:
        return None
    rising, part = position(step, total, warmup)
    ends = (
        (options.max_momentum, options.min_momentum)
        if rising
        else (options.min_momentum, options.max_momentum)
    )
    return _cosine(*ends, part)


class StepSchedule(LRScheduler):
    """Sets rate and momentum of each step; knows nothing but the step, so a resumed run continues exactly.

    Args:
        optimizer: its groups keep their peak rate in `lr`.
        options: shape of the schedule.
        total: optimiser steps of the whole run.
        warmup: steps of warm-up.
    """

    def __init__(self, optimizer: Optimizer, options: ScheduleOptions, total: int, warmup: float) -> None:
        self.options, self.total, self.warmup = options, total, warmup
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the present step, one per group; sets the momenta on the way."""
        step = self.last_epoch
        value = momentum(self.options, step, self.total, self.warmup)
        if value is not None:
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (value, *group["betas"][1:])
                else:
                    group["momentum"] = value
        factor = rate_factor(self.options, step, self.total, self.warmup)
        return [float(base) * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The step and the peak rates: the shape comes from the options."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}
