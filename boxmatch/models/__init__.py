"""Networks and the one forward path through them."""

from boxmatch.models.detector import Detector
from boxmatch.models.presets import simple_yolo
from boxmatch.models.yolo import COCO_ANCHORS, YOLO

__all__ = ["COCO_ANCHORS", "YOLO", "Detector", "simple_yolo"]
