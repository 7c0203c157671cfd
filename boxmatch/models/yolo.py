"""The simple YOLO: ResNet or Darknet, SPP, PAN and three anchor heads."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxmatch.assign import AllGrid, Assigner, NearbyGrid, SingleGrid
from boxmatch.coders import GridCoder, GridMethod, SizeDecode
from boxmatch.losses.yolo import YOLOLoss
from boxmatch.models.arguments import network_arguments
from boxmatch.models.backbones import Initialisation, ResNet
from boxmatch.models.blocks import Activation
from boxmatch.models.darknet import Darknet
from boxmatch.models.detector import Detector
from boxmatch.models.heads import AnchorHead
from boxmatch.models.necks import PAN, SPP
from boxmatch.postprocess import PostProcess
from boxmatch.priors import AnchorGrid

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "darknet"]

STRIDES = (8, 16, 32)

# Width and height in pixels, per stride: clustered on COCO at 416 px (Redmon & Farhadi 2018, sec. 2.3).
COCO_ANCHORS: tuple[tuple[tuple[float, float], ...], ...] = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)

# Arguments that only say what the untrained network is like, or are saved with the coder.
_UNSAVED = ("initialisation", "prior_probability", "method", "wh_decode")


class YOLO(Detector):
    """Simple YOLO of zh320/simple-yolo-pytorch; the defaults of the network are the published ones.

    Args:
        class_names: one name per class, in label order.
        backbone: which network finds the features.
        channel_sparsity: share q in (0, 1] of the backbone's channels that is kept; neck and head follow.
        pretrained: ImageNet weights of a ResNet: true (downloads), a name torchvision knows, or a local file.
        initialisation: scale of a ResNet's random weights, see ResNet.
        anchors: (width, height) in pixels of each anchor, for strides 8, 16 and 32; None takes those of COCO.
        activation: after every convolution block.
        head_bias: give the prediction layers a bias.
        prior_probability: objectness of the untrained network, e.g. 0.01; needs head_bias.
        method: how far from its cell a prediction may reach; None follows the assigner.
        wh_decode: linear (w = 4 · t · anchor, as published), sigmoid4 (4 · sigmoid(t) · anchor) or exp.
        coder: replaces method and wh_decode, which must then be left alone.
        assigner: which prior learns which box; None takes NearbyGrid.
        loss: loss terms; None takes YOLOLoss with its defaults.
        postprocess: predictions to detections; None takes PostProcess with its defaults.

    Raises:
        ValueError: an option does not fit the others; the message says which.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        backbone: Backbone = "resnet18",
        channel_sparsity: float = 0.75,
        pretrained: bool | str = False,
        initialisation: Initialisation = "full_width",
        anchors: Sequence[Sequence[tuple[float, float]]] | None = None,
        activation: Activation = "relu",
        head_bias: bool = False,
        prior_probability: float | None = None,
        method: GridMethod | None = None,
        wh_decode: SizeDecode = "linear",
        coder: GridCoder | None = None,
        assigner: Assigner | None = None,
        loss: YOLOLoss | None = None,
        postprocess: PostProcess | None = None,
    ) -> None:
        anchors = _checked(COCO_ANCHORS if anchors is None else anchors)
        assigner = NearbyGrid() if assigner is None else assigner
        super().__init__(
            class_names,
            architecture=network_arguments(YOLO, locals(), without=_UNSAVED),
            grid=AnchorGrid(anchors, STRIDES),
            coder=_coder(assigner, method, wh_decode, coder),
            assigner=assigner,
            loss=YOLOLoss() if loss is None else loss,
            postprocess=PostProcess() if postprocess is None else postprocess,
        )
        self.backbone = _backbone(
            backbone,
            channel_sparsity=channel_sparsity,
            pretrained=pretrained,
            initialisation=initialisation,
            activation=activation,
        )
        channels = self.backbone.channels
        self.spp = SPP(channels[-1], activation=activation)
        self.pan = PAN(channels[-1], activation=activation)
        self.det_head = AnchorHead(
            channels, len(anchors[0]), self.num_classes, bias=head_bias, prior_probability=prior_probability
        )

    def network(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B A _H _W values"]]:
        """Raw numbers of strides 8, 16, 32; the last axis is objectness, tx, ty, tw, th, class logits."""
        c3, c4, c5 = self.backbone(normalised)
        return self.det_head(self.pan(c3, c4, self.spp(c5)))

    def flatten(
        self, maps: Sequence[Float[Tensor, "B A _H _W values"]]
    ) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P 4"], Float[Tensor, "B P"]]:
        """Class logits, deltas and objectness in the order level → row → column → anchor."""
        rows = torch.cat([m.permute(0, 2, 3, 1, 4).flatten(1, 3) for m in maps], 1)
        objectness, deltas, logits = rows.split((1, 4, self.num_classes), -1)
        return logits, deltas, objectness.squeeze(-1)


def _checked(anchors: Sequence[Sequence[tuple[float, float]]]) -> Sequence[Sequence[tuple[float, float]]]:
    if len(anchors) != len(STRIDES) or len({len(level) for level in anchors}) != 1 or not anchors[0]:
        raise ValueError(
            f"expected the same number of anchors for each of the strides {STRIDES}, got {anchors}"
        )
    return anchors


def _backbone(
    name: Backbone,
    *,
    channel_sparsity: float,
    pretrained: bool | str,
    initialisation: Initialisation,
    activation: Activation,
) -> ResNet | Darknet:
    if name != "darknet":
        return ResNet(
            name,
            channel_sparsity=channel_sparsity,
            pretrained=pretrained,
            initialisation=initialisation,
            activation=activation,
        )
    if pretrained:
        raise ValueError("there are no pretrained darknet weights; set pretrained to False or take a ResNet")
    return Darknet(channel_sparsity=channel_sparsity, activation=activation)


def _coder(
    assigner: Assigner, method: GridMethod | None, wh_decode: SizeDecode, coder: GridCoder | None
) -> GridCoder:
    if coder is None:
        return GridCoder(method or method_of(assigner), wh_decode)
    if method is not None or wh_decode != "linear":
        raise ValueError(
            f"expected either coder or method and wh_decode, got {coder}, method={method!r} and "
            f"wh_decode={wh_decode!r}; say it in the coder only"
        )
    return coder


def method_of(assigner: Assigner) -> GridMethod:
    """The reach of the boxes that fits an assigner.

    Raises:
        ValueError: the assigner is none of the grid methods, so the choice must be made by hand.
    """
    if isinstance(assigner, SingleGrid):
        return "single_grid"
    if isinstance(assigner, NearbyGrid):
        return "nearby_grid"
    if isinstance(assigner, AllGrid):
        return "all_grid"
    raise ValueError(
        f"{type(assigner).__name__} does not say how far a box may lie from its cell; give method: "
        "single_grid (in the cell), nearby_grid (in it or a neighbour) or all_grid (anywhere in the picture)"
    )
