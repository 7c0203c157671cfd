"""Losses: un-reduced functions, and one module per family of detectors."""

from .auto_assign import AutoAssignLoss
from .box_similarity import SimilarityKind, box_similarity
from .centerness import centerness
from .dense import DenseLoss
from .dual_weight import DualWeightLoss
from .functional import bce, focal_loss, quality_focal, sigmoid_focal, varifocal
from .giou import giou_loss
from .reduce import mean_over_ranks
from .region import RegionLoss
from .yolo import YOLOLoss
from .yolov3 import YOLOv3Loss

__all__ = [
    "AutoAssignLoss",
    "DenseLoss",
    "DualWeightLoss",
    "RegionLoss",
    "SimilarityKind",
    "YOLOLoss",
    "YOLOv3Loss",
    "bce",
    "box_similarity",
    "centerness",
    "focal_loss",
    "giou_loss",
    "mean_over_ranks",
    "quality_focal",
    "sigmoid_focal",
    "varifocal",
]
