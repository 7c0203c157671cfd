"""Label assignment: one file per method."""

from .adaptive import INCLUSIVE_INSIDE_MARGIN
from .all_grid import AllGrid
from .atss import ATSS
from .base import Assigner
from .dynamic_atss import DynamicATSS
from .dynamic_soft_label import DynamicSoftLabel
from .nearby_grid import NearbyGrid
from .ota import OTA
from .sim_ota import SimOTA
from .single_grid import SingleGrid
from .task_aligned import TaskAligned

__all__ = [
    "ATSS",
    "INCLUSIVE_INSIDE_MARGIN",
    "OTA",
    "AllGrid",
    "Assigner",
    "DynamicATSS",
    "DynamicSoftLabel",
    "NearbyGrid",
    "SimOTA",
    "SingleGrid",
    "TaskAligned",
]
