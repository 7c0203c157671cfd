"""Detectors as published, one plain function per family."""

from collections.abc import Sequence

from boxmatch.assign import AllGrid, NearbyGrid, SingleGrid
from boxmatch.assign.grid import GridAssigner
from boxmatch.coders import GridMethod
from boxmatch.losses.yolo import YOLOLoss
from boxmatch.models.yolo import YOLO, Backbone
from boxmatch.postprocess import PostProcess

# Shapes match from about a quarter to four times the size.
_SHAPE_THRESHOLD = 0.0625


def simple_yolo(
    class_names: Sequence[str],
    method: GridMethod = "nearby_grid",
    *,
    backbone: Backbone = "resnet18",
    channel_sparsity: float = 0.75,
    pretrained: bool | str = False,
    anchors: Sequence[Sequence[tuple[float, float]]] | None = None,
) -> YOLO:
    """The simple YOLO with the settings its authors ship for Pascal VOC.

    Args:
        class_names: one name per class, in label order.
        method: single_grid, nearby_grid or all_grid.
        backbone: resnet18, resnet34, resnet50, resnet101 or darknet.
        channel_sparsity: share of the backbone's channels that is kept.
        pretrained: ImageNet weights, see YOLO. The reference always loads them, we never download unasked.
        anchors: (width, height) in pixels per stride; None takes those of COCO.

    Raises:
        ValueError: an option does not fit the others; the message says which.

    Source: zh320/simple-yolo-pytorch, commit 0b61f0a, `configs/my_config.py`. Deviation: its assignment bugs
    are repaired, see `docs/methods/grid.md`.
    """
    assigners: dict[str, type[GridAssigner]] = {
        "single_grid": SingleGrid,
        "nearby_grid": NearbyGrid,
        "all_grid": AllGrid,
    }
    if method not in assigners:
        raise ValueError(f"expected a method among {', '.join(assigners)}, got {method!r}")
    return YOLO(
        class_names,
        backbone=backbone,
        channel_sparsity=channel_sparsity,
        pretrained=pretrained,
        anchors=anchors,
        assigner=assigners[method](match_iou_thres=_SHAPE_THRESHOLD),
        loss=YOLOLoss(),
        postprocess=PostProcess(),
    )
