"""Label assignment: one file per method."""

from .all_grid import AllGrid
from .base import Assigner
from .nearby_grid import NearbyGrid
from .single_grid import SingleGrid
from .task_aligned import TaskAligned

__all__ = ["AllGrid", "Assigner", "NearbyGrid", "SingleGrid", "TaskAligned"]
