"""Priors: the places of the network that may learn a box, and the queries for those near one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import box_centers, box_sizes
from .spatial import blocks, dense, nearest, overlapping
from .spatial.index import GridIndex
from .structures import Level, Pairs, Targets


class Cell(NamedTuple):
    """Place of priors on their grid."""

    level: Int64[Tensor, "N"]
    row: Int64[Tensor, "N"]
    column: Int64[Tensor, "N"]
    anchor: Int64[Tensor, "N"]


@dataclass(frozen=True, eq=False)
class Priors:
    """The places of the network that may learn a box, the same for every image of a batch.

    On a grid they are flattened level → row → column → anchor; the anchors of a cell share one centre. Make
    them with `AnchorGrid`, `PointGrid` or `Priors.from_boxes`.

    The queries take all rows of the targets, ignore regions included, for all images at once. They return
    pairs ordered by box, then by prior, and no pair twice. Time and memory grow with the number of pairs;
    priors on no grid are compared with every box, a bounded number at a time.

    Args:
        boxes: xyxy pixels, not clipped to the image.
        centers: (x, y) pixels.
        level: level of each prior; 0 on no grid.
        stride: pixels per cell of each prior's level; 1 on no grid.
        levels: the grid of each level; empty on no grid.
        wh: widths and heights as they were given, free of the rounding of corners.
        index: what the queries look into; None on no grid.
    """

    boxes: Float[Tensor, "P 4"]
    centers: Float[Tensor, "P 2"]
    level: Int64[Tensor, "P"]
    stride: Float[Tensor, "P"]
    levels: tuple[Level, ...]
    wh: Float[Tensor, "P 2"]
    index: GridIndex | None = field(default=None, repr=False)

    @classmethod
    def from_boxes(cls, boxes: Float[Tensor, "P 4"]) -> "Priors":
        """Priors that lie on no grid: proposals, queries."""
        zeros = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return cls(boxes, box_centers(boxes), zeros, torch.ones_like(boxes[:, 0]), (), box_sizes(boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def cells(self, targets: Targets, reach: int = 0) -> Pairs:
        """Priors of the cell that holds the box's centre, on every level, and of its neighbours.

        A centre on the border between two cells belongs to the second; on the far border of the grid, or
        outside, to the nearest cell.

        Args:
            reach: how many cells away the neighbours may be, diagonally too: 1 for a block of 3 × 3, which is
                clipped to the grid.

        Raises:
            ValueError: the priors lie on no grid, or `reach` is negative.
        """
        if self.index is None:
            raise ValueError(
                "expected priors on a grid, got free boxes, which have no cells; use within() instead"
            )
        if reach < 0:
            raise ValueError(f"expected reach of 0 or more cells, got {reach}")
        return blocks.cells(self.index, targets.boxes, reach)

    def inside(self, targets: Targets) -> Pairs:
        """Priors whose centre lies in the box, not on its border."""
        if self.index is None:
            return dense.inside(self.centers, targets.boxes)
        return blocks.inside(self.index, targets.boxes)

    def count_inside(self, targets: Targets) -> Int64[Tensor, "G"]:
        """How many pairs `inside` lists for each box; on no grid the number of priors, which is no less.

        For `assign.piecewise`, which bounds the memory by it.
        """
        if self.index is None:
            return torch.full_like(targets.labels, len(self))
        return blocks.count_inside(self.index, targets.boxes)

    def within(self, targets: Targets, radius: float) -> Pairs:
        """Priors whose centre is less than `radius` strides from the box's in x and in y, in the box or not.

        Args:
            radius: in strides of the prior's level, more than 0; in pixels on no grid.

        Raises:
            ValueError: `radius` is not positive.
        """
        if not radius > 0:
            raise ValueError(f"expected a radius above 0 strides, got {radius}")
        if self.index is None:
            return dense.within(self.centers, self.stride, targets.boxes, radius)
        return blocks.within(self.index, targets.boxes, radius)

    def nearest(self, targets: Targets, k: int) -> Pairs:
        """The `k` priors of each level whose centre is nearest to the box's: all of a level that has fewer.

        Equal distances go to the lowest prior. Priors on no grid count as one level.

        Args:
            k: priors per level, 1 or more.

        Raises:
            ValueError: `k` is less than 1.
        """
        if k < 1:
            raise ValueError(f"expected k of 1 or more priors per level, got {k}")
        if self.index is None:
            return dense.nearest(self.centers, targets.boxes, k)
        return nearest.nearest(self.index, targets.boxes, k)

    def overlapping(self, targets: Targets, min_iou: float, *, strict: bool = False) -> Pairs:
        """Priors whose IoU with the box is at least `min_iou`; see `overlaps`, which also returns the IoU."""
        return self.overlaps(targets, min_iou, strict=strict)[0]

    def overlaps(
        self, targets: Targets, min_iou: float, *, strict: bool = False
    ) -> tuple[Pairs, Float[Tensor, "N"]]:
        """Priors whose IoU with the box is at least `min_iou`, and their IoU as `boxes.pair_iou` gives it.

        Args:
            min_iou: in [0, 1]; for 0 the IoU must be more than 0.
            strict: the IoU must be more than `min_iou`.

        Raises:
            ValueError: `min_iou` is out of range.
        """
        if not 0 <= min_iou <= 1:
            raise ValueError(f"expected min_iou in [0, 1], got {min_iou}")
        strict = strict or min_iou == 0
        if self.index is None:
            return dense.overlapping(self.boxes, targets.boxes, min_iou, strict)
        return overlapping.overlapping(self.index, targets.boxes, min_iou, strict)

    def cell(self, prior: Int64[Tensor, "N"]) -> Cell:
        """Level, row, column and anchor of each prior.

        Raises:
            ValueError: the priors lie on no grid.
        """
        if self.index is None:
            raise ValueError("expected priors on a grid, got free boxes, which have no cells")
        level = self.level[prior]
        place, anchors = prior - self.index.start[level], self.index.anchors[level]
        cell, width = place // anchors, self.index.width[level]
        return Cell(level, cell // width, cell % width, place % anchors)


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


# Multi-scale training uses a dozen sizes; 32 grids of 22 400 priors are some 40 MB.
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
        counts = torch.tensor([len(level) for level in levels], device=device)
        level = torch.repeat_interleave(torch.arange(len(levels), device=device), counts)
        stride = torch.tensor(strides, dtype=torch.float32, device=device)[level]
        boxes = torch.cat((centers - wh / 2, centers + wh / 2), dim=1)
        return Priors(boxes, centers, level, stride, levels, wh, GridIndex.build(levels, boxes, centers, wh))


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
