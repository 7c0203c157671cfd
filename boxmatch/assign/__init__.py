"""Label assignment: one file per method."""

from .adaptive import INCLUSIVE_INSIDE_MARGIN
from .all_grid import AllGrid
from .atss import ATSS
from .auto_assign import AutoAssign
from .base import Assigner
from .dual_weight import DualWeight
from .dynamic_atss import DynamicATSS
from .dynamic_soft_label import DynamicSoftLabel
from .fcos_region import FCOSRegion
from .grid_max_iou import GridMaxIoU
from .hungarian import Hungarian
from .max_iou import MaxIoU
from .measures import KLD, NWD, SimD
from .nearby_grid import NearbyGrid
from .ota import OTA
from .paa import PAA
from .random_assigner import RandomAssigner
from .sim_ota import SimOTA
from .single_grid import SingleGrid
from .task_aligned import TaskAligned
from .uniform import Uniform
from .yolov3 import YOLOv3
from .yolov5_ratio import YOLOv5Ratio

__all__ = [
    "ATSS",
    "INCLUSIVE_INSIDE_MARGIN",
    "KLD",
    "NWD",
    "OTA",
    "PAA",
    "AllGrid",
    "Assigner",
    "AutoAssign",
    "DualWeight",
    "DynamicATSS",
    "DynamicSoftLabel",
    "FCOSRegion",
    "GridMaxIoU",
    "Hungarian",
    "MaxIoU",
    "NearbyGrid",
    "RandomAssigner",
    "SimD",
    "SimOTA",
    "SingleGrid",
    "TaskAligned",
    "Uniform",
    "YOLOv3",
    "YOLOv5Ratio",
]
