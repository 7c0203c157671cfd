"""The first stage of Faster R-CNN: a pyramid from stride 4 on, and a head that says where objects may be."""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from boxmatch.models.dense_head import LevelMaps

STRIDES = (4, 8, 16, 32, 64)


class RegionPyramid(FeaturePyramidNetwork):
    """P2 to P6: torchvision's pyramid over C2 to C5; P6 is every second place of P5.

    Args:
        in_channels: of C2, C3, C4, C5.
        channels: of every map that comes out.
        bias: whether its convolutions have a bias; an edit in kkhoot/PAA_Faster-RCNN left it out.

    Source: Lin et al. 2017 (FPN).
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, bias: bool = True) -> None:
        super().__init__(list(in_channels), channels, LastLevelMaxPool())
        if not bias:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_parameter("bias", None)

    def levels(self, features: Sequence[Float[Tensor, "B _C _H _W"]]) -> list[Float[Tensor, "B D _h _w"]]:
        """P2 … P6 of C2, C3, C4, C5."""
        maps = self(OrderedDict((str(number), feature) for number, feature in enumerate(features)))
        return list(maps.values())


class RegionHead(RPNHead):
    """torchvision's head of a region proposal network, and a branch that predicts the IoU of each box.

    Args:
        channels: of the maps.
        anchors: per place.
        iou: whether there is the branch: a 3 × 3 convolution on the shared one, with PyTorch's own
            initialisation.

    Source: Ren et al. 2015 (Faster R-CNN); kkhoot/PAA_Faster-RCNN for the branch.
    """

    def __init__(self, channels: int, anchors: int, *, iou: bool) -> None:
        super().__init__(channels, anchors)
        self.iou = nn.Conv2d(channels, anchors, 3, padding=1) if iou else None

    def levels(self, features: Sequence[Float[Tensor, "B D _H _W"]]) -> list[LevelMaps]:
        """Objectness logits, deltas and IoU logits of each level."""
        maps = []
        for feature in features:
            shared = self.conv(feature)
            iou = None if self.iou is None else self.iou(shared)
            maps.append(LevelMaps(self.cls_logits(shared), self.bbox_pred(shared), iou))
        return maps
