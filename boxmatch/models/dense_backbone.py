"""Full-width ResNets and ResNeXts for dense detectors, in the variants of the published weights."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from boxmatch.models.deformable import DeformableConv2d
from boxmatch.models.frozen_norm import FrozenBatchNorm2d
from boxmatch.models.pretrained import imagenet_weights

DenseBackboneName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext101_64x4d",
    "resnext101_32x8d",
    "resnext152_32x8d",
]
Norm = Literal["frozen", "eval", "batch"]


class _Shape(NamedTuple):
    """Kind of block, blocks per stage, groups, width of a group."""

    block: type[BasicBlock | Bottleneck]
    layers: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64


_SHAPES: dict[str, _Shape] = {
    "resnet18": _Shape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Shape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Shape(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Shape(Bottleneck, (3, 4, 23, 3)),
    "resnet152": _Shape(Bottleneck, (3, 8, 36, 3)),
    "resnext101_64x4d": _Shape(Bottleneck, (3, 4, 23, 3), 64, 4),
    "resnext101_32x8d": _Shape(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext152_32x8d": _Shape(Bottleneck, (3, 8, 36, 3), 32, 8),
}


class DenseBackbone(nn.Module):
    """ResNet or ResNeXt without classifier; gives the maps of strides 8, 16 and 32.

    Args:
        name: which network.
        pretrained: False for random weights, True for torchvision's ImageNet weights (downloads; not for
            resnext152_32x8d), the name of such weights, or the path of a local file: torchvision's names, or
            a Caffe2 / MSRA pickle.
        stride_in_1x1: put the stride of a bottleneck into its first 1 × 1 convolution, as the MSRA weights
            want it; torchvision's and the FAIR ResNeXts have it in the 3 × 3.
        norm: "frozen" (statistics and affine values are constants), "eval" (statistics are constants, affine
            values learn outside the frozen stages), or "batch" (ordinary batch norm).
        norm_eps: added to the variance; 0 in the maskrcnn-benchmark family.
        frozen_stages: how many parts do not learn, counted from the stem: 0 none, 1 the stem, 2 the stem and
            the first stage, … 5 all.
        deformable_stages: which of the stages 2, 3, 4 (maps of strides 8, 16, 32) have deformable 3 × 3
            convolutions (DCNv2); bottlenecks only.

    Raises:
        ValueError: an option is unknown or does not fit the others, or the weights do not fit the network.
        FileNotFoundError: there is no such local file.
        ConnectionError: a download fails.

    Source: He et al. 2016, Xie et al. 2017 (ResNeXt), Zhu et al. 2019 (DCNv2).
    """

    def __init__(
        self,
        name: DenseBackboneName = "resnet50",
        *,
        pretrained: bool | str = False,
        stride_in_1x1: bool = False,
        norm: Norm = "frozen",
        norm_eps: float = 1e-5,
        frozen_stages: int = 2,
        deformable_stages: Sequence[int] = (),
    ) -> None:
        super().__init__()
        _check(name, norm, frozen_stages, deformable_stages)
        shape = _SHAPES[name]
        self.name, self.norm, self.frozen_stages = name, norm, frozen_stages
        full = TorchvisionResNet(
            shape.block,
            list(shape.layers),
            groups=shape.groups,
            width_per_group=shape.width_per_group,
            norm_layer=_norm_layer(norm, norm_eps),
        )
        if pretrained:
            full.load_state_dict(imagenet_weights(name, pretrained, full.state_dict()), strict=False)
        self.conv1, self.bn1, self.relu, self.maxpool = full.conv1, full.bn1, full.relu, full.maxpool
        self.layer1, self.layer2 = full.layer1, full.layer2
        self.layer3, self.layer4 = full.layer3, full.layer4
        if stride_in_1x1:
            self._move_strides()
        for stage in deformable_stages:
            self._deform(getattr(self, f"layer{stage}"))
        expansion = shape.block.expansion
        self.channels = (128 * expansion, 256 * expansion, 512 * expansion)
        self._freeze()
        self.train()  # a loop of one's own may train the network as it is made

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C3 H3 W3"], Float[Tensor, "B C4 H4 W4"], Float[Tensor, "B C5 H5 W5"]]:
        """Maps of strides 8, 16 and 32; a size that is no multiple of the stride is rounded up."""
        _, c3, c4, c5 = self.stages(images)
        return c3, c4, c5

    def stages(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[
        Float[Tensor, "B C2 H2 W2"],
        Float[Tensor, "B C3 H3 W3"],
        Float[Tensor, "B C4 H4 W4"],
        Float[Tensor, "B C5 H5 W5"],
    ]:
        """The maps of all four stages, that of stride 4 included, which has half the channels of the next."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)

    def train(self, mode: bool = True) -> "DenseBackbone":
        """Training mode; frozen stages, and under "eval" all batch norm, stay in evaluation mode."""
        super().train(mode)
        frozen = self._parts() if self.norm == "eval" else self._parts()[: self.frozen_stages]
        for part in frozen:
            part.eval()
        return self

    def _parts(self) -> list[nn.Module]:
        stem = nn.ModuleList((self.conv1, self.bn1))
        return [stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def _freeze(self) -> None:
        for part in self._parts()[: self.frozen_stages]:
            part.requires_grad_(False)

    def _move_strides(self) -> None:
        for module in self.modules():
            if isinstance(module, Bottleneck) and module.conv2.stride != (1, 1):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)

    @staticmethod
    def _deform(stage: nn.Module) -> None:
        for module in stage.modules():
            if isinstance(module, Bottleneck):
                plain = module.conv2
                module.conv2 = DeformableConv2d(
                    plain.in_channels, plain.out_channels, stride=plain.stride[0], groups=plain.groups
                )


def _norm_layer(norm: Norm, eps: float) -> Callable[[int], nn.Module]:
    """What torchvision's constructor calls with a number of channels."""
    if norm == "frozen":
        return lambda channels: FrozenBatchNorm2d(channels, eps)
    return lambda channels: nn.BatchNorm2d(channels, eps)


def _check(name: str, norm: str, frozen_stages: int, deformable_stages: Sequence[int]) -> None:
    if name not in _SHAPES:
        raise ValueError(f"expected a backbone among {', '.join(_SHAPES)}, got {name!r}")
    if norm not in get_args(Norm):
        raise ValueError(f"expected norm in {get_args(Norm)}, got {norm!r}")
    if not 0 <= frozen_stages <= 5:
        raise ValueError(f"expected frozen_stages in 0 .. 5, got {frozen_stages}")
    if not set(deformable_stages) <= {2, 3, 4}:
        raise ValueError(f"expected deformable_stages among 2, 3, 4, got {list(deformable_stages)}")
    if deformable_stages and _SHAPES[name].block is BasicBlock:
        raise ValueError(f"{name} has no bottlenecks to deform; leave deformable_stages empty")
