"""The grids that make priors. The priors themselves are in `prior_set`, and here by the same name."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from .prior_set import Cell, Priors
from .structures import Level

__all__ = ["AnchorGrid", "Cell", "PointGrid", "Priors"]


class AnchorGrid:
    """Anchors of fixed sizes at the same place of every cell: in its middle, if nothing else is said.

    Args:
        anchors: the (width, height) of each anchor of each level in pixels; levels may differ in number.
        strides: pixels per cell of each level.
        center: where in its cell a prior's centre lies, in strides: 0.5 in the middle, 0 in the corner
            (RetinaNet's anchors, AutoAssign's points).
        shift: pixels added to every centre; 0.5 stands for boxes with inclusive pixel edges, whose right and
            lower corner counts one pixel less (ATSS, PAA).

    Raises:
        ValueError: the arguments differ in length, a level has no anchor, a size or stride is not positive, a
            centre lies outside its cell.
    """

    def __init__(
        self,
        anchors: Sequence[Sequence[Sequence[float]]],
        strides: Sequence[int],
        *,
        center: float = 0.5,
        shift: float = 0.0,
    ) -> None:
        if not 0 <= center < 1 or not math.isfinite(shift):
            raise ValueError(f"expected center in [0, 1) and a finite shift, got {center=}, {shift=}")
        self.center, self.shift = center, shift
        self.anchors = tuple(tuple(tuple(map(float, size)) for size in level) for level in anchors)
        self.strides = tuple(strides)
        if not self.strides or len(self.anchors) != len(self.strides):
            raise ValueError(
                f"expected one list of anchors per stride, got {len(self.anchors)} for strides {self.strides}"
            )
        for level, (sizes, stride) in enumerate(zip(self.anchors, self.strides)):
            if not sizes or stride <= 0 or any(len(size) != 2 or min(size) <= 0 for size in sizes):
                raise ValueError(
                    f"level {level}: expected a stride and anchors (width, height) above 0, got stride "
                    f"{stride} and anchors {sizes}"
                )

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device | str = "cpu") -> Priors:
        """Priors for feature maps of the given (height, width), one per level; kept for the next call.

        Raises:
            ValueError: the number of sizes is not that of the levels, or a map is empty.
        """
        levels = tuple((int(height), int(width)) for height, width in sizes)
        if len(levels) != len(self.strides) or min(map(min, levels)) < 1:
            raise ValueError(
                f"expected a height and width of 1 or more for {len(self.strides)} levels, got {levels}"
            )
        place = (self.center, self.shift)
        return _grid_priors(self.anchors, self.strides, place, levels, torch.device(device))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(anchors={self.anchors}, strides={self.strides}, center={self.center}, "
            f"shift={self.shift})"
        )


class PointGrid(AnchorGrid):
    """One point per cell, with a square around it for methods that ask for a box.

    Args:
        strides: pixels per cell of each level.
        size: side of the square in strides.
        center: where in its cell the point lies, in strides.
        shift: pixels added to every point.

    Raises:
        ValueError: a stride or the size is not positive, a point lies outside its cell.
    """

    def __init__(
        self, strides: Sequence[int], size: float = 1.0, *, center: float = 0.5, shift: float = 0.0
    ) -> None:
        squares = [[(size * stride, size * stride)] for stride in strides]
        super().__init__(squares, strides, center=center, shift=shift)


# Multi-scale training uses a dozen sizes; 32 grids of 22 400 priors are some 70 MB.
@lru_cache(maxsize=32)
def _grid_priors(
    anchors: tuple[tuple[tuple[float, ...], ...], ...],
    strides: tuple[int, ...],
    place: tuple[float, float],
    sizes: tuple[tuple[int, int], ...],
    device: torch.device,
) -> Priors:
    # What is kept must serve training even if validation under inference_mode asked first.
    with torch.inference_mode(False), torch.no_grad():
        levels = tuple(
            Level(height, width, stride, len(level))
            for (height, width), stride, level in zip(sizes, strides, anchors)
        )
        parts = [_level_centers_and_sizes(*part, place, device) for part in zip(levels, anchors)]
        centers, wh = (torch.cat(column) for column in zip(*parts))
        boxes = torch.cat((centers - wh / 2, centers + wh / 2), dim=1)
        return Priors.on_grid(boxes, centers, wh, levels)


def _level_centers_and_sizes(
    level: Level,
    anchors: tuple[tuple[float, ...], ...],
    place: tuple[float, float],
    device: torch.device,
) -> tuple[Float[Tensor, "P 2"], Float[Tensor, "P 2"]]:
    rows, columns = (torch.arange(size, device=device) for size in (level.height, level.width))
    center, shift = place
    y, x = ((cells + center) * level.stride + shift for cells in (rows, columns))
    y, x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack((x, y), dim=-1).reshape(-1, 1, 2).expand(-1, level.anchors, -1)
    sizes = torch.tensor(anchors, device=device).expand(level.height * level.width, -1, -1)
    return centers.reshape(-1, 2), sizes.reshape(-1, 2)
