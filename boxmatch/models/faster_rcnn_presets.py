"""Published two-stage detectors, as plain functions; training settings are in `recipes/paa_rpn/`."""

from collections.abc import Sequence
from typing import Any

from boxmatch.models.dense_backbone import DenseBackboneName
from boxmatch.models.faster_rcnn import FasterRCNN


def faster_rcnn(
    class_names: Sequence[str],
    *,
    backbone: DenseBackboneName = "resnet50",
    pretrained: bool | str = False,
    **network: Any,
) -> FasterRCNN:
    """Faster R-CNN with FPN as Detectron2 has it: Max-IoU 0.7 / 0.3 in the region proposal network.

    Args:
        class_names: one name per class, in label order.
        backbone: resnet50 in the published table.
        pretrained: MSRA weights, see `DenseBackbone`.
        network: further arguments of `FasterRCNN`; they win over the published ones.

    Source: Ren et al. 2015, Lin et al. 2017; the baseline of kkhoot/PAA_Faster-RCNN.
    """
    published = {
        "backbone": backbone,
        "pretrained": pretrained,
        "stride_in_1x1": not backbone.startswith("resnext"),
        "input_norm": "caffe",
    }
    return FasterRCNN(class_names, **(published | network))


def paa_faster_rcnn(
    class_names: Sequence[str],
    *,
    backbone: DenseBackboneName = "resnet50",
    pretrained: bool | str = False,
    **network: Any,
) -> FasterRCNN:
    """`faster_rcnn` with PAA and an IoU branch in the region proposal network.

    Args:
        class_names: one name per class, in label order.
        backbone: see `faster_rcnn`.
        pretrained: see `faster_rcnn`.
        network: see `faster_rcnn`.

    Source: Kim & Lee 2020 (PAA); kkhoot/PAA_Faster-RCNN, whose pyramid has no biases (`bias_free_fpn=True`).
    """
    return faster_rcnn(class_names, backbone=backbone, pretrained=pretrained, **({"rpn": "paa"} | network))
