"""The optimiser of a run: its groups of weights and its peak learning rate."""

import torch
from torch import nn
from torch.optim import Optimizer

from boxmatch.training.options import OptimizerOptions

# Published factor between the rates of SGD and of the Adam family.
_ADAM_FACTOR = 0.1
# SGD: the reference's value; AdamW: PyTorch's default; Adam: none, as in the reference.
_USUAL_DECAY = {"sgd": 1e-4, "adamw": 0.01, "adam": 0.0}


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


def make_optimizer(module: nn.Module, options: OptimizerOptions, rate: float) -> Optimizer:
    """The optimiser over all weights that take a gradient.

    Raises:
        ValueError: no weight takes a gradient.
    """
    weights = [p for p in module.parameters() if p.requires_grad]
    if not weights:
        raise ValueError("expected weights to train, got a detector with all of them frozen; unfreeze some")
    decay = _USUAL_DECAY[options.name] if options.weight_decay is None else options.weight_decay
    spared = [] if options.decay_norm_and_bias or decay == 0 else [w for w in weights if w.ndim <= 1]
    decayed = [w for w in weights if not spared or w.ndim > 1]
    groups = [{"params": w, "weight_decay": d} for w, d in ((decayed, decay), (spared, 0.0)) if w]
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov)
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(options.momentum, 0.999))
