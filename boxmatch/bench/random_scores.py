"""Random weights whose scores spread like those of a trained detector."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

CANDIDATES = 1000
"""Pairs of place and class per picture above the threshold, as with trained weights on a busy picture."""

_BRANCH_GAIN = 0.2
"""Of each residual branch. Without statistics of its own a random ResNet doubles the variance per block."""

_CLASS_DEVIATION = 1.0
"""Of the classes' mean logits, as much as that within a class: few classes have most candidates."""


def tame_branches(module: nn.Module) -> None:
    """Keep the maps of a random ResNet with frozen norms in range."""
    for block in module.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            norm = block.bn3 if isinstance(block, Bottleneck) else block.bn2
            norm.weight.data.fill_(_BRANCH_GAIN)


@torch.no_grad()
def spread_scores(
    class_logits: nn.Conv2d,
    forward: Callable[[], object],
    *,
    least_probability: float,
    candidates: int = CANDIDATES,
) -> None:
    """Scale the class branch so that so many entries of a picture reach a probability.

    Each logit channel gets unit deviation and a random mean.

    Args:
        class_logits: last convolution of the class branch; changed.
        forward: runs the network on one picture.
        least_probability: of a candidate.
        candidates: how many; all entries if there are fewer.
    """
    seen: list[Tensor] = []
    hook = class_logits.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        forward()
    finally:
        hook.remove()
    rows = torch.cat([level.transpose(0, 1).flatten(1) for level in seen], dim=1)
    mean, deviation = rows.mean(1), rows.std(1).clamp(min=1e-6)
    generator = torch.Generator().manual_seed(0)
    wanted = _CLASS_DEVIATION * torch.randn(len(rows), generator=generator)
    spread = (rows - mean[:, None]) / deviation[:, None] + wanted[:, None]
    count = min(candidates, spread.numel())
    least = spread.flatten().topk(count).values[-1]
    lift = math.log(least_probability / (1 - least_probability)) - least
    assert class_logits.bias is not None
    class_logits.weight /= deviation[:, None, None, None]
    class_logits.bias.copy_((class_logits.bias - mean) / deviation + wanted + lift)
