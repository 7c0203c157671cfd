"""Batch normalisation that never changes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """A fixed scale and shift per channel: batch norm whose statistics and affine values are buffers.

    Args:
        channels: of the map.
        eps: added to the variance; 1e-5 as in batch norm, 0 in the maskrcnn-benchmark family (ATSS, PAA).

    Raises:
        ValueError: `eps` is negative.
    """

    weight: Float[Tensor, "C"]
    bias: Float[Tensor, "C"]
    running_mean: Float[Tensor, "C"]
    running_var: Float[Tensor, "C"]

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"expected eps of 0 or more, got {eps}")
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The map, scaled and shifted."""
        # Four numbers per channel: float32 whatever the map is, rounded once at the end.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(
            shift.to(features.dtype)[:, None, None], features, scale.to(features.dtype)[:, None, None]
        )

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"
