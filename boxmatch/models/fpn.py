"""Feature pyramid: maps of equal width from stride 8 to stride 128."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

TopSource = Literal["p5", "c5"]


class FPN(FeaturePyramidNetwork):
    """P3 to P7: lateral 1 × 1 and output 3 × 3 convolutions with bias, nearest upsampling, P7 from ReLU(P6).

    torchvision's pyramid, with its names of the weights.

    Args:
        in_channels: of C3, C4, C5.
        channels: of every map that comes out.
        top: whether P6 is made from P5 (ATSS, PAA, FCOS, DW) or from C5 (RetinaNet).

    Raises:
        ValueError: `top` is unknown, or is "c5" while C5 has as many channels as P5: torchvision's block then
            takes P5.

    Source: Lin et al. 2017 (FPN; RetinaNet for P6 and P7).
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, top: TopSource = "p5") -> None:
        if top not in ("p5", "c5"):
            raise ValueError(f"expected top in ('p5', 'c5'), got {top!r}")
        if top == "c5" and in_channels[-1] == channels:
            raise ValueError(f"expected C5 of other than {channels} channels with top='c5'; take top='p5'")
        extra = LastLevelP6P7(channels if top == "p5" else in_channels[-1], channels)
        super().__init__(list(in_channels), channels, extra)
        # torchvision leaves these two at a = 1 as well; the biases of all start at 0.
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def levels(self, features: Sequence[Float[Tensor, "B _C _H _W"]]) -> list[Float[Tensor, "B D _h _w"]]:
        """P3 … P7 of C3, C4, C5."""
        maps = self(OrderedDict((str(number), feature) for number, feature in enumerate(features)))
        return list(maps.values())
