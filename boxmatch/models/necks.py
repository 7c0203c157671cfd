"""What stands between backbone and head: spatial pyramid pooling and the path aggregation network."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from boxmatch.models.blocks import Activation, conv_block, separable_block


class SPP(nn.Module):
    """Spatial pyramid pooling: the input beside its maxima over 5, 9 and 13 cells; channels and size stay.

    Source: He et al. 2015, in the form of YOLOv3-SPP; `models/modules.py` of zh320/simple-yolo-pytorch.
    """

    def __init__(self, channels: int, *, activation: Activation = "relu") -> None:
        super().__init__()
        self.conv1 = conv_block(channels, channels // 2, 1, activation=activation)
        self.conv2 = conv_block(2 * channels, channels, 1, activation=activation)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Same shape as the input."""
        near = self.conv1(features)
        # Windows of 5 over windows of 5 are windows of 9, once more is 13: same values, a third of the work.
        within5 = self.pool(near)
        within9 = self.pool(within5)
        return self.conv2(torch.cat([near, within5, within9, self.pool(within9)], 1))


class PAN(nn.Module):
    """Path aggregation: coarse to fine, then fine to coarse, over maps of channels D/4, D/2 and D.

    Source: Liu et al. 2018; `models/modules.py` of zh320/simple-yolo-pytorch, whose names the parts keep.
    """

    def __init__(self, channels: int, *, activation: Activation = "relu") -> None:
        super().__init__()
        whole, half, quarter = channels, channels // 2, channels // 4
        self.up1 = conv_block(whole, half, 1, activation=activation)
        self.down1 = conv_block(quarter, quarter, 3, stride=2, activation=activation)
        self.down2 = conv_block(half, half, 3, stride=2, activation=activation)
        self.up2 = nn.Sequential(
            conv_block(whole, quarter, 1, activation=activation),
            conv_block(quarter, quarter, 3, activation=activation),
        )
        self.head1 = nn.Sequential(
            conv_block(half, quarter, 1, activation=activation),
            conv_block(quarter, quarter, 3, activation=activation),
        )
        self.head2 = nn.Sequential(
            separable_block(half, half, 3, activation=activation),
            conv_block(half, half, 1, activation=activation),
        )
        self.head3 = nn.Sequential(
            separable_block(whole, whole, 3, activation=activation),
            conv_block(whole, whole, 1, activation=activation),
        )

    def forward(
        self,
        c3: Float[Tensor, "B C3 H3 W3"],
        c4: Float[Tensor, "B C4 H4 W4"],
        c5: Float[Tensor, "B C5 H5 W5"],
    ) -> tuple[Float[Tensor, "B C3 H3 W3"], Float[Tensor, "B C4 H4 W4"], Float[Tensor, "B C5 H5 W5"]]:
        """Maps of the same shapes; upsampling takes the nearest cell and the finer map's size."""
        u5 = self.up1(c5)  # (B, D/2, H5, W5)
        u4 = self.up2(torch.cat([interpolate(u5, size=c4.shape[2:]), c4], 1))  # (B, D/4, H4, W4)
        p3 = self.head1(torch.cat([interpolate(u4, size=c3.shape[2:]), c3], 1))
        p4 = self.head2(torch.cat([self.down1(p3), u4], 1))
        p5 = self.head3(torch.cat([self.down2(p4), u5], 1))
        return p3, p4, p5
