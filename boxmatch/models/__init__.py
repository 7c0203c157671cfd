"""Networks and the one forward path through them."""

from boxmatch.models.dense import DenseDetector
from boxmatch.models.dense_presets import atss, dual_weight, dynamic_atss, fcos, paa, retinanet
from boxmatch.models.detector import Detector
from boxmatch.models.faster_rcnn import FasterRCNN
from boxmatch.models.faster_rcnn_presets import faster_rcnn, paa_faster_rcnn
from boxmatch.models.presets import simple_yolo
from boxmatch.models.yolo import COCO_ANCHORS, YOLO

__all__ = [
    "COCO_ANCHORS",
    "YOLO",
    "DenseDetector",
    "Detector",
    "FasterRCNN",
    "atss",
    "dual_weight",
    "dynamic_atss",
    "faster_rcnn",
    "fcos",
    "paa",
    "paa_faster_rcnn",
    "retinanet",
    "simple_yolo",
]
