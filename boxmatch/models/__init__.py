"""Networks and the one forward path through them."""

from boxmatch.models.dense import DenseDetector
from boxmatch.models.dense_presets import atss, dual_weight, dynamic_atss, fcos, paa, retinanet
from boxmatch.models.detector import Detector
from boxmatch.models.presets import simple_yolo
from boxmatch.models.yolo import COCO_ANCHORS, YOLO

__all__ = [
    "COCO_ANCHORS",
    "YOLO",
    "DenseDetector",
    "Detector",
    "atss",
    "dual_weight",
    "dynamic_atss",
    "fcos",
    "paa",
    "retinanet",
    "simple_yolo",
]
