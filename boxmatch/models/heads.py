"""What turns feature maps into numbers per prior."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AnchorHead(nn.Module):
    """One 1×1 convolution per map: objectness, box numbers and class logits for each anchor of each cell.

    Args:
        channels: of each map.
        anchors: per cell.
        num_classes: number of class logits.
        bias: give the convolutions a bias, starting at 0; the reference has none.
        prior_probability: objectness of an untrained network; needs the bias. Starting near the rarity of
            objects keeps the many background cells from ruling the first steps (Lin et al. 2017, focal loss,
            sec. 4.1). None starts at 0.5.

    Raises:
        ValueError: prior_probability is outside (0, 1) or given without bias.
    """

    def __init__(
        self,
        channels: Sequence[int],
        anchors: int,
        num_classes: int,
        *,
        bias: bool = False,
        prior_probability: float | None = None,
    ) -> None:
        super().__init__()
        if prior_probability is not None and not (bias and 0 < prior_probability < 1):
            raise ValueError(
                f"prior_probability must lie in (0, 1) and needs a head with bias (head_bias=True), "
                f"got {prior_probability} and bias={bias}"
            )
        self.anchors = anchors
        self.values = 5 + num_classes  # objectness, tx, ty, tw, th, class logits
        self.heads = nn.ModuleList(nn.Conv2d(c, anchors * self.values, 1, bias=bias) for c in channels)
        if bias:
            start = torch.zeros(anchors, self.values)
            if prior_probability is not None:
                start[:, 0] = -math.log((1 - prior_probability) / prior_probability)
            for head in self.heads:
                head.bias = nn.Parameter(start.flatten().clone())

    def forward(
        self, features: Sequence[Float[Tensor, "B _C _H _W"]]
    ) -> list[Float[Tensor, "B A _H _W values"]]:
        """Raw numbers of each map; the last axis is objectness, tx, ty, tw, th, class logits."""
        maps = [head(feature) for head, feature in zip(self.heads, features, strict=True)]
        # (B, A·values, H, W) → (B, A, H, W, values): a view in either memory layout.
        return [m.unflatten(1, (self.anchors, self.values)).permute(0, 1, 3, 4, 2) for m in maps]
