"""Any network of `timm` that gives maps of strides 8, 16 and 32, as the backbone of a dense detector."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from boxmatch.models.dense_backbone import Norm
from boxmatch.models.timm_survey import STRIDES, Survey, survey
from boxmatch.models.timm_weights import build_timm

PREFIX = "timm/"
"""What the names of these backbones start with."""

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class TimmBackbone(nn.Module):
    """A network of `timm` without classifier; gives the maps of strides 8, 16 and 32.

    Pictures come with ImageNet's mean and deviation; the network gets them with those of its own weights.

    Args:
        name: "timm/" and timm's name, e.g. timm/convnext_tiny; a tag after a dot chooses among published
            weights, e.g. timm/convnext_tiny.in12k_ft_in1k.
        pretrained: False for random weights, True for the published ones (downloads), or the path of a local
            file (.safetensors, .pth) of the whole network under timm's names.
        norm: "frozen" (statistics and affine values of batch norm are constants), "eval" (statistics are
            constants, affine values learn outside the frozen stages), or "batch" (ordinary batch norm).
            Networks without batch norm are the same under each.
        frozen_stages: how much does not learn: 0 nothing, 1 all that the map of stride 2 is made of, 2 that
            of stride 4, … 5 everything. Networks whose first map has stride 4 have no 1.

    Raises:
        ModuleNotFoundError: `timm` is not installed.
        ValueError: there is no such network, it has no such maps or stages, it takes pictures of one size
            only, or the weights do not fit.
        FileNotFoundError: there is no such local file.
        ConnectionError: the download fails.

    Source: Wightman 2019, PyTorch Image Models.
    """

    scale: Float[Tensor, "3 1 1"]
    shift: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str = False,
        norm: Norm = "frozen",
        frozen_stages: int = 2,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"expected norm in {get_args(Norm)}, got {norm!r}")
        self.name, self.norm, self.frozen_stages = name, norm, frozen_stages
        found = survey(name.removeprefix(PREFIX))
        self.channels, self.channels_last = found.channels, found.channels_last
        learning = _learning(name, found, frozen_stages)
        self.body, about = build_timm(name.removeprefix(PREFIX), pretrained, **found.options)
        for key, parameter in self.body.named_parameters():
            parameter.requires_grad_(key in learning)
        self._take_colours(about)
        if norm == "frozen":
            from timm.layers import freeze_batch_norm_2d

            freeze_batch_norm_2d(self.body)
        self.train()  # a loop of one's own may train the network as it is made

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C3 H3 W3"], Float[Tensor, "B C4 H4 W4"], Float[Tensor, "B C5 H5 W5"]]:
        """Maps of strides 8, 16 and 32; a size that is no multiple of the stride is rounded up."""
        height, width = images.shape[2:]
        # Stems that cut a picture in patches would round down.
        whole = functional.pad(images * self.scale + self.shift, (0, -width % 32, 0, -height % 32))
        maps = self.body(whole)
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        c3, c4, c5 = (
            features[:, :, : -(-height // stride), : -(-width // stride)]
            for features, stride in zip(maps, STRIDES)
        )
        return c3, c4, c5

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Training mode; batch norm of frozen stages, and under "eval" all of it, stays in evaluation.

        Raises:
            ValueError: a conversion to synchronised batch norm has dropped the activations.
        """
        if any(type(module) is nn.SyncBatchNorm and hasattr(module, "act") for module in self.modules()):
            raise ValueError(
                f"batch norm of {self.name} applies the activation too, and torch's SyncBatchNorm none; "
                "leave trainer.sync_batchnorm out, or convert with timm.layers.convert_sync_batchnorm"
            )
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BATCH_NORMS) and (self.norm == "eval" or not _learns(module)):
                module.eval()
        return self

    def _take_colours(self, about: Mapping[str, Any]) -> None:
        """Note how to get from ImageNet's mean and deviation to those of the network; weights tell them."""
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        mean, deviation = (torch.tensor(values) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        own_mean = torch.tensor(about.get("mean") or IMAGENET_DEFAULT_MEAN)
        own_deviation = torch.tensor(about.get("std") or IMAGENET_DEFAULT_STD)
        self.register_buffer("scale", (deviation / own_deviation).view(3, 1, 1))
        self.register_buffer("shift", ((mean - own_mean) / own_deviation).view(3, 1, 1))


def _learning(name: str, found: Survey, frozen_stages: int) -> frozenset[str]:
    """Names of the parameters that learn.

    Raises:
        ValueError: there are no such stages.
    """
    # What leads to none of the three maps never gets a gradient, which stops a training on several devices.
    learning = frozenset().union(*(found.made_of[stride] for stride in STRIDES))
    if not frozen_stages:
        return learning
    stages = [number for number in range(1, 6) if 2**number in found.made_of]
    if frozen_stages not in stages:
        raise ValueError(
            f"expected frozen_stages of {name} among 0, {', '.join(map(str, stages))} (the stages with a map "
            f"of their own), got {frozen_stages}"
        )
    return learning - found.made_of[2**frozen_stages] if frozen_stages < 5 else frozenset()


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
