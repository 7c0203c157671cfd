"""Published dense detectors, one plain function per family; training settings are in `recipes/`."""

from collections.abc import Sequence
from typing import Any

from boxmatch.assign import (
    ATSS,
    INCLUSIVE_INSIDE_MARGIN,
    PAA,
    DualWeight,
    DynamicATSS,
    FCOSRegion,
    MaxIoU,
)
from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.losses.dense import DenseLoss
from boxmatch.losses.dual_weight import DualWeightLoss
from boxmatch.models.backbone_choice import BackboneName
from boxmatch.models.dense import DenseDetector


def atss(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    deformable: bool = False,
    pretrained: bool | str = False,
    inclusive_pixels: bool = True,
    **network: Any,
) -> DenseDetector:
    """ATSS as published: nine nearest anchors per level, mean + deviation of their IoU as the threshold.

    Args:
        class_names: one name per class, in label order.
        backbone: resnet50, resnet101, resnext101_32x8d or resnext101_64x4d in the published tables.
        deformable: deformable convolutions in the backbone and at the end of both towers.
        pretrained: MSRA weights of the ResNets, FAIR weights of the ResNeXts; see `DenseBackbone`.
        inclusive_pixels: as published, for boxes whose right and lower edges count as pixels; False for
            MMDetection's plain boxes, which need `anchor_shift=0` too.
        network: further arguments of `DenseDetector`; they win over the published ones.

    Source: Zhang et al. 2020; settings of sfzhang15/ATSS.
    """
    return DenseDetector(
        class_names,
        **(_benchmark(backbone, deformable, pretrained) | network),
        assigner=ATSS(inside_margin=_inside_margin(inclusive_pixels)),
        loss=DenseLoss(quality_target="centerness", box_weight=2.0, inclusive_pixels=inclusive_pixels),
        postprocess=DensePostProcess(inclusive_pixels=inclusive_pixels),
    )


def dynamic_atss(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    deformable: bool = False,
    pretrained: bool | str = False,
    inclusive_pixels: bool = True,
    **network: Any,
) -> DenseDetector:
    """ATSS with the IoU of the predicted box added to that of the anchor; the class learns that IoU.

    Args:
        class_names: one name per class, in label order.
        backbone: see `atss`.
        deformable: see `atss`.
        pretrained: see `atss`.
        inclusive_pixels: see `atss`.
        network: see `atss`.

    Source: ZTX-100/DLA-Combined-IoUs, the released code.
    """
    return DenseDetector(
        class_names,
        **(_benchmark(backbone, deformable, pretrained) | network),
        assigner=DynamicATSS(inside_margin=_inside_margin(inclusive_pixels)),
        loss=DenseLoss(
            class_loss="qfl",
            class_target="iou",
            quality_target="iou",
            box_weight=2.0,
            inclusive_pixels=inclusive_pixels,
        ),
        postprocess=DensePostProcess(inclusive_pixels=inclusive_pixels),
    )


def paa(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    deformable: bool = False,
    pretrained: bool | str = False,
    iou_branch: bool = True,
    voting: bool = True,
    inclusive_pixels: bool = True,
    **network: Any,
) -> DenseDetector:
    """PAA as published: a mixture of two Gaussians over the losses of a box's candidates.

    Args:
        class_names: one name per class, in label order.
        backbone: resnet50, resnet101, resnext101_32x8d, resnext101_64x4d or resnext152_32x8d.
        deformable: see `atss`.
        pretrained: see `atss`.
        iou_branch: predict the IoU of the box; without it the box loss is not weighted and the score is the
            class probability.
        voting: score voting after NMS.
        inclusive_pixels: see `atss`.
        network: see `atss`.

    Source: Kim & Lee 2020; settings of kkhoot/PAA.
    """
    return DenseDetector(
        class_names,
        **(_benchmark(backbone, deformable, pretrained) | {"quality": iou_branch} | network),
        assigner=PAA(inclusive_pixels=inclusive_pixels),
        loss=DenseLoss(
            quality_target="iou" if iou_branch else None,
            box_weight=1.3,
            quality_weight=0.5,
            inclusive_pixels=inclusive_pixels,
        ),
        postprocess=DensePostProcess(
            fusion="sqrt" if iou_branch else "class",
            vote_sigma=0.025 if voting else None,
            inclusive_pixels=inclusive_pixels,
        ),
    )


def dual_weight(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    deformable: bool = False,
    pretrained: bool | str = False,
    **network: Any,
) -> DenseDetector:
    """DW as published: every prior in a box weighs in, with separate positive and negative weights.

    Args:
        class_names: one name per class, in label order.
        backbone: resnet50 or resnet101 in the published table.
        deformable: see `atss`.
        pretrained: torchvision's weights, see `DenseBackbone`.
        network: see `atss`. `refine=None` is without box refinement: published 41.5 AP against 42.1 with it.

    Source: Li et al. 2022; settings of strongwolf/DW.
    """
    published = {
        "backbone": backbone,
        "pretrained": pretrained,
        "norm": "eval",
        "deformable_stages": (2, 3, 4) if deformable else (),
        "deformable_tower": deformable,
        "box_numbers": "distances",
        "refine": "zeros",
        "prior_probability": 0.02,
    }
    return DenseDetector(
        class_names,
        **(published | network),
        assigner=DualWeight.official(),
        loss=DualWeightLoss.official(),
        postprocess=DensePostProcess(fusion="product", threshold_on="score"),
    )


def retinanet(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    pretrained: bool | str = False,
    **network: Any,
) -> DenseDetector:
    """RetinaNet with nine anchors per place and GIoU loss: Max-IoU 0.5 / 0.4 with rescue.

    Args:
        class_names: one name per class, in label order.
        backbone: any.
        pretrained: see `DenseBackbone`.
        network: see `atss`.

    Source: Lin et al. 2017; the box loss is GIoU, as in later versions, instead of smooth L1.
    """
    published = {
        "backbone": backbone,
        "pretrained": pretrained,
        "top": "c5" if backbone not in ("resnet18", "resnet34") else "p5",
        "group_norm": False,
        "quality": False,
        "anchor_size": 4.0,
        "anchor_scales": 3,
        "anchor_ratios": (0.5, 1.0, 2.0),
        "anchor_center": 0.0,
    }
    return DenseDetector(
        class_names,
        **(published | network),
        assigner=MaxIoU(),
        loss=DenseLoss(quality_target=None),
        postprocess=DensePostProcess(fusion="class", nms_iou=0.5),
    )


def fcos(
    class_names: Sequence[str],
    *,
    backbone: BackboneName = "resnet50",
    pretrained: bool | str = False,
    **network: Any,
) -> DenseDetector:
    """FCOS with centre sampling, GIoU loss and the centerness branch on the box tower.

    Args:
        class_names: one name per class, in label order.
        backbone: any.
        pretrained: see `DenseBackbone`.
        network: see `atss`.

    Source: Tian et al. 2019, with the later improvements.
    """
    published = {"backbone": backbone, "pretrained": pretrained, "box_numbers": "distances"}
    return DenseDetector(
        class_names,
        **(published | network),
        assigner=FCOSRegion(),
        loss=DenseLoss(quality_target="centerness", box_weight=1.0),
        postprocess=DensePostProcess(),
    )


def _inside_margin(inclusive_pixels: bool) -> float:
    """Least distance of a prior's centre to the sides of the box; MMDetection's is that of the originals."""
    return INCLUSIVE_INSIDE_MARGIN if inclusive_pixels else 0.01


def _benchmark(backbone: str, deformable: bool, pretrained: bool | str) -> dict[str, Any]:
    """The network of the maskrcnn-benchmark family: MSRA ResNets, FAIR ResNeXts, norms without epsilon."""
    grouped, plain = backbone.startswith("resnext"), backbone.startswith("resnet")
    stages = (3, 4) if grouped else (2, 3, 4)
    published = {
        "backbone": backbone,
        "pretrained": pretrained,
        "norm": "frozen",
        "deformable_stages": stages if deformable else (),
        "deformable_tower": deformable,
        "anchor_shift": 0.5,
    }
    if not (grouped or plain):
        # The family has no weights for other backbones, so their own ways hold.
        return published
    return published | {"stride_in_1x1": plain, "norm_eps": 0.0, "input_norm": "caffe"}
