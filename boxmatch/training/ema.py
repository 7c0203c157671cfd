"""The running average of a network's weights and buffers."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boxmatch.training.options import EMAOptions


def decay_at(options: EMAOptions, step: int, total: int) -> float:
    """Part of the old average kept at optimiser step `step` (from 0) of `total`."""
    if options.kind == "linear_ramp":
        return min(max(step / max(total, 1), 0.0), 1.0)
    if options.warmup_steps:
        return options.decay * (1 - math.exp(-(step + 1) / options.warmup_steps))
    return options.decay


def average_of(module: nn.Module) -> nn.Module:
    """A copy of the module that takes no gradients: the average before the first step."""
    return copy.deepcopy(module).requires_grad_(False)


@dataclass(frozen=True)
class Entries:
    """Entries of two state dicts in the same order: old moves towards new.

    Args:
        old: numbers of the average.
        new: numbers of the network.
        old_counters: whole numbers of the average.
        new_counters: whole numbers of the network.
    """

    old: list[Tensor]
    new: list[Tensor]
    old_counters: list[Tensor]
    new_counters: list[Tensor]


def matched_entries(average: nn.Module, module: nn.Module) -> Entries:
    """The entries of both, looked up once: walking the modules at every step costs as much as the average.

    Valid until a module is moved to another device or its parameters are replaced.
    """
    olds, news = (each.state_dict(keep_vars=True).values() for each in (average, module))
    pairs = list(zip(olds, news, strict=True))
    numbers = [(old, new) for old, new in pairs if old.is_floating_point()]
    counters = [(old, new) for old, new in pairs if not old.is_floating_point()]
    return Entries(
        [old for old, _ in numbers],
        [new for _, new in numbers],
        [old for old, _ in counters],
        [new for _, new in counters],
    )


@torch.no_grad()
def update_average(entries: Entries, decay: float) -> None:
    """Move every entry to decay · average + (1 − decay) · network; whole numbers are copied.

    Whole numbers are counters (batches seen by a batch norm), whose average has no meaning.
    """
    if entries.old:
        torch._foreach_lerp_(entries.old, entries.new, 1.0 - decay)
    if entries.old_counters:
        torch._foreach_copy_(entries.old_counters, entries.new_counters)
