"""The head of dense detectors: two towers, shared by all levels, and three predictions per place."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxmatch.models.box_refinement import Border, check_border, refine_distances
from boxmatch.models.deformable import DeformableConv2d

BoxNumbers = Literal["deltas", "distances"]

_GROUPS = 32  # of the group normalisation, as in FCOS
_WEIGHT_DEVIATION = 0.01  # of all convolutions of the head, as in RetinaNet


class LevelMaps(NamedTuple):
    """What the head says about one level.

    Args:
        logits: class logits.
        boxes: deltas, or distances to the four sides in pixels.
        quality: centerness, IoU or objectness logit; None for heads without that branch.
    """

    logits: Float[Tensor, "B AC H W"]
    boxes: Float[Tensor, "B A4 H W"]
    quality: Float[Tensor, "B A H W"] | None


def prior_rows(
    maps: Sequence[LevelMaps], classes: int
) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P 4"], Float[Tensor, "B P"] | None]:
    """Logits, box numbers and quality of all levels in the order level → row → column → anchor.

    Args:
        maps: of each level.
        classes: logits per prior.
    """
    logits = torch.cat([_rows(level.logits, classes) for level in maps], dim=1)
    boxes = torch.cat([_rows(level.boxes, 4) for level in maps], dim=1)
    quality = [_rows(level.quality, 1) for level in maps if level.quality is not None]
    return logits, boxes, torch.cat(quality, dim=1).squeeze(2) if quality else None


def _rows(values: Float[Tensor, "B AK H W"], width: int) -> Float[Tensor, "B P K"]:
    """One row of `width` numbers per prior."""
    return values.permute(0, 2, 3, 1).reshape(values.shape[0], -1, width)


class DenseHead(nn.Module):
    """Class logits from one tower; box numbers and, if asked for, a quality logit from the other.

    Args:
        channels: of the maps and towers; a multiple of 32.
        num_classes: class logits per prior.
        anchors: priors per place.
        levels: maps, each with a learned scale of its box numbers.
        tower_length: convolutions per tower, each with ReLU.
        group_norm: whether a group norm of 32 groups stands before each ReLU; RetinaNet has none.
        quality: whether there is a quality branch.
        box_numbers: "deltas" (what comes out, times the level's scale) or "distances" (pixels to the four
            sides: stride · ReLU(scale · what comes out)).
        deformable: make the last convolution of both towers deformable (DCNv2).
        refine: read each side again near its middle, see `refine_distances`; needs "distances" and one
            anchor per place. None leaves it out.
        prior_probability: class probability of an untrained network.

    Raises:
        ValueError: an option is out of range or does not fit the others.

    Source: Lin et al. 2017 (RetinaNet), Tian et al. 2019 (FCOS), Zhang et al. 2020 (ATSS).
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        anchors: int = 1,
        levels: int = 5,
        tower_length: int = 4,
        group_norm: bool = True,
        quality: bool = True,
        box_numbers: BoxNumbers = "deltas",
        deformable: bool = False,
        refine: Border | None = None,
        prior_probability: float = 0.01,
    ) -> None:
        super().__init__()
        _check(channels, box_numbers, refine, anchors, prior_probability)
        self.box_numbers, self.refine = box_numbers, refine
        self.class_tower = _tower(channels, tower_length, group_norm, deformable)
        self.box_tower = _tower(channels, tower_length, group_norm, deformable)
        self.class_logits = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.boxes = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        self.quality = nn.Conv2d(channels, anchors, 3, padding=1) if quality else None
        self.offsets = nn.Conv2d(channels, 8, 3, padding=1) if refine else None
        self.scales = nn.Parameter(torch.ones(levels))
        self._initialise(prior_probability)

    def forward(
        self, features: Sequence[Float[Tensor, "B D _H _W"]], strides: Sequence[int]
    ) -> list[LevelMaps]:
        """Predictions of each level."""
        return [
            self._level(feature, scale, stride)
            for feature, scale, stride in zip(features, self.scales, strides, strict=True)
        ]

    def _level(self, feature: Tensor, scale: Tensor, stride: int) -> LevelMaps:
        box_feature = self.box_tower(feature)
        logits = self.class_logits(self.class_tower(feature))
        boxes = self.boxes(box_feature)
        quality = None if self.quality is None else self.quality(box_feature)
        # From here on in pixels: half precision would round large distances to whole pixels.
        with torch.autocast(feature.device.type, enabled=False):
            boxes = boxes.float() * scale
            if self.box_numbers == "distances":
                boxes = boxes.relu() * stride
        if self.offsets is not None and self.refine is not None:
            boxes = refine_distances(boxes, self.offsets(box_feature), stride, self.refine)
        return LevelMaps(logits, boxes, quality)

    def _initialise(self, prior_probability: float) -> None:
        for module in self.modules():
            # Deformable layers draw their weights themselves; only their offsets follow the head.
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_WEIGHT_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        bias = self.class_logits.bias
        assert bias is not None and self.boxes.bias is not None
        nn.init.constant_(bias, -math.log((1 - prior_probability) / prior_probability))
        if self.box_numbers == "distances":
            # Boxes of 8 strides at the start: ReLU passes no gradient below 0.
            nn.init.constant_(self.boxes.bias, 4.0)


def _tower(channels: int, length: int, group_norm: bool, deformable: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(length):
        last = deformable and number == length - 1
        layers.append(
            DeformableConv2d(channels, channels, bias=True)
            if last
            else nn.Conv2d(channels, channels, 3, padding=1)
        )
        layers += [nn.GroupNorm(_GROUPS, channels) if group_norm else nn.Identity(), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _check(
    channels: int, box_numbers: str, refine: str | None, anchors: int, prior_probability: float
) -> None:
    if channels % _GROUPS:
        raise ValueError(f"expected channels as a multiple of {_GROUPS} (group norm), got {channels}")
    if box_numbers not in get_args(BoxNumbers):
        raise ValueError(f"expected box_numbers in {get_args(BoxNumbers)}, got {box_numbers!r}")
    if refine is not None:
        check_border(refine)
        if box_numbers != "distances" or anchors != 1:
            raise ValueError(
                f"refine needs box_numbers='distances' and one anchor per place, got {box_numbers!r} and "
                f"{anchors}"
            )
    if not 0 < prior_probability < 1:
        raise ValueError(f"expected prior_probability in (0, 1), got {prior_probability}")
