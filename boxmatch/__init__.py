"""Label assignment for object detectors: which box teaches which part of the network.

The names below are imported when they are first used, so that `import boxmatch` alone costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxmatch.assign import (
        ATSS,
        OTA,
        PAA,
        AllGrid,
        Assigner,
        AutoAssign,
        DualWeight,
        DynamicATSS,
        DynamicSoftLabel,
        FCOSRegion,
        GridMaxIoU,
        Hungarian,
        MaxIoU,
        NearbyGrid,
        RandomAssigner,
        SimOTA,
        SingleGrid,
        TaskAligned,
        Uniform,
        YOLOv3,
        YOLOv5Ratio,
    )
    from boxmatch.checkpoints import load_detector, save_detector
    from boxmatch.data.module import DataModule
    from boxmatch.losses.auto_assign import AutoAssignLoss
    from boxmatch.losses.dual_weight import DualWeightLoss
    from boxmatch.losses.yolo import YOLOLoss
    from boxmatch.losses.yolov3 import YOLOv3Loss
    from boxmatch.models import YOLO, Detector, simple_yolo
    from boxmatch.postprocess import PostProcess
    from boxmatch.priors import AnchorGrid, PointGrid, Priors
    from boxmatch.structures import Assignment, Detections, Pairs, Predictions, Targets
    from boxmatch.train import fit, validate

__version__ = "0.1.0"

_HOMES = {
    "ATSS": "assign",
    "AllGrid": "assign",
    "AnchorGrid": "priors",
    "Assigner": "assign",
    "Assignment": "structures",
    "AutoAssign": "assign",
    "AutoAssignLoss": "losses.auto_assign",
    "DataModule": "data.module",
    "Detections": "structures",
    "Detector": "models",
    "DualWeight": "assign",
    "DualWeightLoss": "losses.dual_weight",
    "DynamicATSS": "assign",
    "DynamicSoftLabel": "assign",
    "FCOSRegion": "assign",
    "GridMaxIoU": "assign",
    "Hungarian": "assign",
    "MaxIoU": "assign",
    "NearbyGrid": "assign",
    "OTA": "assign",
    "PAA": "assign",
    "Pairs": "structures",
    "PointGrid": "priors",
    "PostProcess": "postprocess",
    "Predictions": "structures",
    "Priors": "priors",
    "RandomAssigner": "assign",
    "SimOTA": "assign",
    "SingleGrid": "assign",
    "Targets": "structures",
    "TaskAligned": "assign",
    "Uniform": "assign",
    "YOLO": "models",
    "YOLOLoss": "losses.yolo",
    "YOLOv3": "assign",
    "YOLOv3Loss": "losses.yolov3",
    "YOLOv5Ratio": "assign",
    "fit": "train",
    "load_detector": "checkpoints",
    "save_detector": "checkpoints",
    "simple_yolo": "models",
    "validate": "train",
}

__all__ = [
    "ATSS",
    "OTA",
    "PAA",
    "YOLO",
    "AllGrid",
    "AnchorGrid",
    "Assigner",
    "Assignment",
    "AutoAssign",
    "AutoAssignLoss",
    "DataModule",
    "Detections",
    "Detector",
    "DualWeight",
    "DualWeightLoss",
    "DynamicATSS",
    "DynamicSoftLabel",
    "FCOSRegion",
    "GridMaxIoU",
    "Hungarian",
    "MaxIoU",
    "NearbyGrid",
    "Pairs",
    "PointGrid",
    "PostProcess",
    "Predictions",
    "Priors",
    "RandomAssigner",
    "SimOTA",
    "SingleGrid",
    "Targets",
    "TaskAligned",
    "Uniform",
    "YOLOLoss",
    "YOLOv3",
    "YOLOv3Loss",
    "YOLOv5Ratio",
    "fit",
    "load_detector",
    "save_detector",
    "simple_yolo",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'boxmatch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"boxmatch.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names and the version."""
    return sorted([*__all__, "__version__"])
