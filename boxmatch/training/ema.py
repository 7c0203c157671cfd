"""The running average of a network's weights and buffers."""

import copy
import math

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


def _entries(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict(keep_vars=True).values())


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move every entry of the state dict to decay · average + (1 − decay) · module; whole numbers are copied.

    Whole numbers are counters (batches seen by a batch norm), whose average has no meaning.
    """
    olds, news = [], []
    for old, new in zip(_entries(average), _entries(module), strict=True):
        if old.is_floating_point():
            olds.append(old)
            news.append(new)
        else:
            old.copy_(new)
    torch._foreach_lerp_(olds, news, 1.0 - decay)
