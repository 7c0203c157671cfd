"""The optimiser of a run: its groups of weights and its peak learning rate."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from boxmatch.training.options import OptimizerOptions

# Published factor between the rates of SGD and of the Adam family.
_ADAM_FACTOR = 0.1
# Linear rule of the dense detectors trained by SGD: 0.01 belongs to 16 pictures (ATSS, PAA, DW); the rate may
# be this many times as high, and as low, before it is worth a warning.
_RULE_RATE, _RULE_PICTURES, _TOO_HIGH, _TOO_LOW = 0.01, 16, 4.0, 1 / 16
# SGD: the reference's value; AdamW: PyTorch's default; Adam: none, as in the reference.
_USUAL_DECAY = {"sgd": 1e-4, "adamw": 0.01, "adam": 0.0}

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def peak_rate(options: OptimizerOptions, processes: int, pictures_per_step: int) -> tuple[float, str]:
    """Peak learning rate of a run, and the product it comes from.

    Args:
        options: base rate and rule.
        processes: processes that train together.
        pictures_per_step: pictures of one optimiser step, over all processes and accumulated batches.
    """
    factor = 1.0 if options.name == "sgd" else _ADAM_FACTOR
    rule = f"{options.base_lr:g} × {factor:g} ({options.name}) × "
    if options.reference_batch_size is None:
        counted = "process" if processes == 1 else "processes"
        return options.base_lr * factor * processes, f"{rule}{processes} {counted}"
    rate = options.base_lr * factor * pictures_per_step / options.reference_batch_size
    return rate, f"{rule}{pictures_per_step} pictures per step / {options.reference_batch_size}"


def rate_warning(options: OptimizerOptions, rate: float, pictures_per_step: int) -> str | None:
    """A sentence about a rate of SGD that is far from what belongs to the pictures of a step, or None."""
    usual = _RULE_RATE * pictures_per_step / _RULE_PICTURES
    if options.name != "sgd" or _TOO_LOW < rate / usual < _TOO_HIGH:
        return None
    direction, danger = ("above", "may diverge") if rate > usual else ("below", "will learn slowly")
    return (
        f"warning: the learning rate {rate:g} is far {direction} {usual:g}, which is usual for "
        f"{pictures_per_step} pictures per step ({_RULE_RATE:g} for {_RULE_PICTURES}): training {danger}; "
        f"set --optimizer.base_lr, or have it scaled by --optimizer.reference_batch_size {_RULE_PICTURES}"
    )


def make_optimizer(module: nn.Module, options: OptimizerOptions, rate: float) -> Optimizer:
    """The optimiser over all weights that take a gradient.

    Raises:
        ValueError: no weight takes a gradient.
    """
    groups = _groups(module, options, rate)
    if not groups:
        raise ValueError("expected weights to train, got a detector with all of them frozen; unfreeze some")
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov)
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(options.momentum, 0.999))


def _groups(module: nn.Module, options: OptimizerOptions, rate: float) -> list[dict[str, Any]]:
    """The weights by their rate and decay, in the order in which the kinds first occur."""
    decay = _USUAL_DECAY[options.name] if options.weight_decay is None else options.weight_decay
    norms = {id(p) for part in module.modules() if isinstance(part, _NORMS) for p in part.parameters(False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            continue
        bias = "bias" in name
        spared = (
            (weight.ndim <= 1 and not options.decay_norm_and_bias)
            or (bias and "bias" in options.no_decay)
            or (id(weight) in norms and "norm" in options.no_decay)
        )
        kind = (rate * options.bias_rate if bias else rate, 0.0 if spared else decay)
        groups.setdefault(kind, []).append(weight)
    return [{"params": w, "lr": lr, "weight_decay": decay} for (lr, decay), w in groups.items()]
