"""torchvision's detectors on a backbone of three layers, and random pictures for them."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

STRIDES = (8, 16, 32)
CLASSES = 4

Detector = RetinaNet | FCOS | FasterRCNN
Data = tuple[list[Tensor], list[dict[str, Tensor]]]


class Backbone(nn.Module):
    """Random features at strides 8, 16 and 32."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 8, 8)
        self.down = nn.ModuleList([nn.Conv2d(32, 32, 3, 2, 1) for _ in STRIDES[1:]])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """One map per stride."""
        maps = [self.stem(images).relu()]
        for layer in self.down:
            maps.append(layer(maps[-1]).relu())
        return OrderedDict((str(number), features) for number, features in enumerate(maps))


def plain(size: tuple[int, int]) -> dict[str, Any]:
    """Options of a transform that leaves pictures of this size as they are, but for the padding."""
    return {
        "min_size": min(size),
        "max_size": max(size),
        "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
    }


def retinanet(seed: int = 0, size: tuple[int, int] = (96, 128)) -> RetinaNet:
    """Three anchors of three shapes per cell."""
    torch.manual_seed(seed)
    sizes = tuple((4 * stride,) for stride in STRIDES)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return RetinaNet(Backbone(), CLASSES, anchor_generator=generator, **plain(size)).train()


def fcos(seed: int = 0, size: tuple[int, int] = (96, 128)) -> FCOS:
    """One point per cell."""
    torch.manual_seed(seed)
    generator = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    return FCOS(Backbone(), CLASSES, anchor_generator=generator, **plain(size)).train()


def faster_rcnn(seed: int = 0, size: tuple[int, int] = (96, 128)) -> FasterRCNN:
    """Proposals enough for some to overlap boxes, and a sampler that has to choose."""
    torch.manual_seed(seed)
    sizes = tuple((3 * stride,) for stride in STRIDES)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    sampling = {
        "rpn_batch_size_per_image": 32,
        "box_batch_size_per_image": 24,
        "rpn_post_nms_top_n_train": 300,
    }
    return FasterRCNN(Backbone(), CLASSES, rpn_anchor_generator=generator, **plain(size), **sampling).train()


def pictures(counts: tuple[int, ...], seed: int = 0, size: tuple[int, int] = (96, 128)) -> Data:
    """Noise, and boxes of classes 1 to 3 that overlap anchors; an image for each count."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    images, targets = [], []
    for count in counts:
        wh = 10 + 60 * uniform(count, 2)
        corner = uniform(count, 2) * (torch.tensor([float(size[1]), float(size[0])]) - wh)
        images.append(uniform(3, *size))
        labels = 1 + ((CLASSES - 1) * uniform(count)).long()
        targets.append({"boxes": torch.cat([corner, corner + wh], 1), "labels": labels})
    return images, targets


def losses(model: Detector, data: Data) -> dict[str, Tensor]:
    """Of one training step, sampling with a fixed seed; the model gets copies."""
    images, targets = data
    torch.manual_seed(7)
    found: dict[str, Tensor] = model([image.clone() for image in images], [dict(part) for part in targets])
    return found
