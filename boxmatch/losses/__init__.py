"""Losses: un-reduced functions, and one module per family of detectors."""

from .box_similarity import SimilarityKind, box_similarity
from .functional import bce, focal_loss, quality_focal, varifocal
from .reduce import mean_over_ranks
from .yolo import YOLOLoss

__all__ = [
    "SimilarityKind",
    "YOLOLoss",
    "bce",
    "box_similarity",
    "focal_loss",
    "mean_over_ranks",
    "quality_focal",
    "varifocal",
]
