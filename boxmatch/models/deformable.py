"""Modulated deformable convolution (DCNv2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

_TAPS = 9  # a 3 × 3 kernel


def convolve_at(
    values: Float[Tensor, "B C H W"],
    offsets: Float[Tensor, "B O h w"],
    weight: Float[Tensor, "D I k k"],
    bias: Float[Tensor, "D"] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    mask: Float[Tensor, "B M h w"] | None = None,
) -> Float[Tensor, "B D h w"]:
    """`torchvision.ops.deform_conv2d`, and NaN wherever an offset is NaN.

    By itself that function takes such an offset for an address and ends the process, so that a run which
    diverges could not say so.
    """
    lost = offsets.isnan()
    result: Tensor = deform_conv2d(
        values, offsets.masked_fill(lost, 0.0), weight, bias, stride=stride, padding=padding, mask=mask
    )
    return result.masked_fill(lost.any(1, keepdim=True), math.nan)


class DeformableConv2d(nn.Module):
    """3 × 3 convolution that reads each of its nine taps at a learned place with a learned strength.

    A plain convolution gives 27 numbers per place: (dy, dx) of each tap, then nine logits of the strengths.
    Reads outside the map are 0. Offsets and sampling are computed in float32.

    Args:
        in_channels: of the map that is read.
        out_channels: of the result.
        stride: of the places.
        groups: of the convolution; the offsets are common to all groups.
        bias: whether the convolution has one.

    Source: Zhu et al. 2019 (Deformable ConvNets v2). Initialisation as in maskrcnn-benchmark: uniform
    ± 1 / sqrt(9 in_channels); offsets Kaiming-uniform with a = 1 and bias 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.offset = nn.Conv2d(in_channels, 3 * _TAPS, 3, stride=stride, padding=1)
        assert self.offset.bias is not None
        bound = 1 / math.sqrt(in_channels * _TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.kaiming_uniform_(self.offset.weight, a=1)
        nn.init.zeros_(self.offset.bias)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The map, convolved at the learned places."""
        with torch.autocast(features.device.type, enabled=False):
            values = features.float()
            offset, strength = self.offset(values).split((2 * _TAPS, _TAPS), dim=1)
            result = convolve_at(
                values,
                offset,
                self.weight,
                self.bias,
                stride=self.stride,
                padding=1,
                mask=strength.sigmoid(),
            )
        return result.to(features.dtype)

    def extra_repr(self) -> str:
        out_channels, per_group = self.weight.shape[:2]
        return f"{per_group} per group, {out_channels}, stride={self.stride}"
