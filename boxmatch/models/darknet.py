"""Darknet-53 as the simple YOLO of the reference builds it."""

from jaxtyping import Float
from torch import Tensor, nn

from boxmatch.models.blocks import Activation, conv_block


class Residual(nn.Module):
    """1×1 to half the channels, 3×3 back, plus the input; no activation after the sum."""

    def __init__(self, channels: int, *, activation: Activation = "relu") -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv_block(channels, channels // 2, 1, activation=activation),
            conv_block(channels // 2, channels, 3, activation=activation),
        )

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Same shape as the input."""
        return features + self.conv(features)


class Darknet(nn.Module):
    """Darknet-53 with width c = 32 q; gives the maps of strides 8, 16 and 32. Never pretrained.

    Args:
        channel_sparsity: q in (0, 1]; 32 q must be a whole number.
        activation: of every block; ReLU in the reference, leaky ReLU in the paper.

    Raises:
        ValueError: 32 q is not a whole number.

    Source: `models/darknet.py` of zh320/simple-yolo-pytorch; Redmon & Farhadi 2018.
    """

    def __init__(self, *, channel_sparsity: float = 1.0, activation: Activation = "relu") -> None:
        super().__init__()
        self.channels = darknet_channels(channel_sparsity)
        base = self.channels[0] // 8
        self.stage0 = nn.Sequential(
            conv_block(3, base, 3, activation=activation),
            conv_block(base, 2 * base, 3, stride=2, activation=activation),
        )
        # Blocks per stage: Redmon & Farhadi 2018 (YOLOv3), table 1.
        self.stage1 = _stage(2 * base, 1, activation)
        self.down1 = _halve(2 * base, activation)
        self.stage2 = _stage(4 * base, 2, activation)
        self.down2 = _halve(4 * base, activation)
        self.stage3 = _stage(8 * base, 8, activation)
        self.down3 = _halve(8 * base, activation)
        self.stage4 = _stage(16 * base, 8, activation)
        self.down4 = _halve(16 * base, activation)
        self.stage5 = _stage(32 * base, 4, activation)

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C3 H3 W3"], Float[Tensor, "B C4 H4 W4"], Float[Tensor, "B C5 H5 W5"]]:
        """Maps of strides 8, 16 and 32; a size that is no multiple of the stride is rounded up."""
        shallow = self.down1(self.stage1(self.stage0(images)))
        c3 = self.stage3(self.down2(self.stage2(shallow)))
        c4 = self.stage4(self.down3(c3))
        return c3, c4, self.stage5(self.down4(c4))


def _stage(channels: int, blocks: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, activation=activation) for _ in range(blocks)))


def _halve(channels: int, activation: Activation) -> nn.Sequential:
    """Half the size, twice the channels."""
    return conv_block(channels, 2 * channels, 3, stride=2, activation=activation)


def darknet_channels(channel_sparsity: float) -> tuple[int, int, int]:
    """Channels of the three maps.

    Raises:
        ValueError: q is outside (0, 1] or 32 q is not a whole number.
    """
    base = 32 * channel_sparsity
    if not 0 < channel_sparsity <= 1 or base != int(base):
        raise ValueError(
            f"channel_sparsity {channel_sparsity} gives darknet a base of {base:g} channels, which must be "
            "whole; take q in (0, 1] as a multiple of 1/32, e.g. 0.25, 0.375, 0.5, 0.625, 0.75, 1"
        )
    return 8 * int(base), 16 * int(base), 32 * int(base)
