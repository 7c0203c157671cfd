"""ResNets whose width can be cut: torchvision's layers, the leading part of each."""

from pathlib import Path
from typing import Literal, get_args

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import ResNet as FullResNet

from boxmatch.models.blocks import Activation, make_activation
from boxmatch.models.pretrained import download
from boxmatch.models.weights import read_weights

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
Initialisation = Literal["full_width", "own_width"]

# Channels of the last stage at full width.
_LAST_CHANNELS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}


class ResNet(nn.Module):
    """ResNet without pooling and classifier; gives the maps of strides 8, 16 and 32.

    Args:
        name: which depth.
        channel_sparsity: q in (0, 1]; every layer keeps the first int(q · n) of its n channels.
        pretrained: True for torchvision's IMAGENET1K_V1 weights (downloads), another weight name of
            torchvision, the path of a local file with the tensors of the full-width net, or False for random
            weights. Leading slices are kept: no ranking by importance, no new normalisation.
        initialisation: scale of random convolution weights. `full_width` draws at full width and then cuts,
            as the reference does, so weights are smaller by √q than He's rule gives a net of this width;
            `own_width` makes up for it. Batch norm cancels the scale in the forward pass; what changes is the
            step size relative to the weights.
        activation: replaces ReLU everywhere; not together with `pretrained`.

    Raises:
        ValueError: this width does not fit the neck, pretrained weights meet another activation, or the file
            does not fit.
        FileNotFoundError: there is no such local file.
        ConnectionError: the download fails.

    Source: He et al. 2016; cutting as in `models/mresnet.py` of zh320/simple-yolo-pytorch.
    """

    def __init__(
        self,
        name: ResNetName = "resnet18",
        *,
        channel_sparsity: float = 1.0,
        pretrained: bool | str = False,
        initialisation: Initialisation = "full_width",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.channels = resnet_channels(name, channel_sparsity)
        if pretrained and activation != "relu":
            raise ValueError(
                f"pretrained ResNet weights expect activation='relu', got {activation!r}; drop one of them"
            )
        full = _full_width(name, pretrained)
        _cut(full, channel_sparsity, rescale=initialisation == "own_width" and not pretrained)
        for module in full.modules():
            if hasattr(module, "relu"):
                module.relu = make_activation(activation)
        self.conv1, self.bn1, self.relu, self.maxpool = full.conv1, full.bn1, full.relu, full.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            full.layer1,
            full.layer2,
            full.layer3,
            full.layer4,
        )

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C3 H3 W3"], Float[Tensor, "B C4 H4 W4"], Float[Tensor, "B C5 H5 W5"]]:
        """Maps of strides 8, 16 and 32; a size that is no multiple of the stride is rounded up."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c3 = self.layer2(self.layer1(stem))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)


def resnet_channels(name: str, channel_sparsity: float) -> tuple[int, int, int]:
    """Channels of the three maps.

    Raises:
        ValueError: the name is unknown, q is outside (0, 1], or the neck, which halves the deepest map's
            channels twice, does not fit.
    """
    if name not in _LAST_CHANNELS:
        raise ValueError(
            f"expected a backbone among {', '.join(get_args(ResNetName))}, darknet, got {name!r}"
        )
    last = _LAST_CHANNELS[name]
    c3, c4, c5 = (int(last * part * channel_sparsity) for part in (0.25, 0.5, 1.0))
    if not 0 < channel_sparsity <= 1 or int(64 * channel_sparsity) < 1 or c5 != 2 * c4 or c4 != 2 * c3:
        raise ValueError(
            f"channel_sparsity {channel_sparsity} gives {name} maps of {c3}, {c4} and {c5} channels, but "
            "each must have exactly twice those of the one before; take q in (0, 1] as a multiple of 1/32, "
            "e.g. 0.25, 0.375, 0.5, 0.625, 0.75, 1"
        )
    return c3, c4, c5


def _full_width(name: ResNetName, pretrained: bool | str) -> FullResNet:
    """Torchvision's network with random, published or local weights."""
    network: FullResNet = torchvision.models.get_model(name)
    del network.fc
    if not pretrained:
        return network
    published = {weights.name: weights for weights in torchvision.models.get_model_weights(name)}
    wanted = "IMAGENET1K_V1" if pretrained is True else str(pretrained)
    if wanted in published and not Path(wanted).exists():
        weights = download(published[wanted])
    elif Path(wanted).is_file():
        weights = read_weights(wanted)
    else:
        raise ValueError(
            f"pretrained={wanted!r} is neither a local file nor published weights of {name} "
            f"({', '.join(published)})"
        )
    weights = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights {wanted!r} are not those of a full-width {name}: {error}") from error
    return network


@torch.no_grad()
def _cut(network: nn.Module, channel_sparsity: float, rescale: bool) -> None:
    """Keep the leading filters and planes of every layer, in place; `rescale` restores He's fan-out scale."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            planes = module.in_channels
            kept_in = planes if planes == 3 else int(planes * channel_sparsity)  # 3: the image, never cut
            kept_out = int(module.out_channels * channel_sparsity)
            scale = (module.out_channels / kept_out) ** 0.5 if rescale else 1.0
            module.weight = nn.Parameter(module.weight[:kept_out, :kept_in] * scale)
            module.in_channels, module.out_channels = kept_in, kept_out
        elif isinstance(module, nn.BatchNorm2d):
            kept = int(module.num_features * channel_sparsity)
            module.num_features = kept
            module.weight = nn.Parameter(module.weight[:kept].clone())
            module.bias = nn.Parameter(module.bias[:kept].clone())
            for name in ("running_mean", "running_var"):
                setattr(module, name, getattr(module, name)[:kept].clone())
