"""Priors: the places of the network that may learn a box, and the queries for those near one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import box_centers, box_sizes
from .spatial import blocks, dense, even_grid, nearest, overlapping
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
    them with `AnchorGrid`, `PointGrid`, `Priors.from_levels` or `Priors.from_boxes`.

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

    @classmethod
    def from_levels(cls, boxes: Float[Tensor, "P 4"], levels: Sequence[Level]) -> "Priors":
        """Priors of a grid that somebody else has made, such as torchvision's `AnchorGenerator`.

        Rows and columns must be evenly spaced, by whatever step, and the anchors of a cell share its centre.
        All boxes are compared with such a grid: keep the result for the next batch of the same size.

        Args:
            boxes: flattened level → row → column → anchor, as float32 arithmetic gave them.
            levels: rows, columns and anchors per cell of each level; the stride is what `within` counts in
                and, where there is but one row or column, the side of its cells.

        Raises:
            ValueError: the number of boxes is another, or a box does not lie where the grid would have it.
        """
        return cls.on_grid(boxes, *even_grid.centers_and_sizes(boxes, tuple(levels)), tuple(levels))

    @classmethod
    def on_grid(
        cls,
        boxes: Float[Tensor, "P 4"],
        centers: Float[Tensor, "P 2"],
        wh: Float[Tensor, "P 2"],
        levels: tuple[Level, ...],
    ) -> "Priors":
        """Priors of which it is known that they lie on the grid; nothing is checked."""
        counts = torch.tensor([len(level) for level in levels], device=boxes.device)
        level = torch.repeat_interleave(torch.arange(len(levels), device=boxes.device), counts)
        stride = torch.tensor([float(grid.stride) for grid in levels], device=boxes.device)[level]
        return cls(boxes, centers, level, stride, levels, wh, GridIndex.build(levels, boxes, centers, wh))

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

    def nearest(self, targets: Targets, k: int, *, whole_cells: bool = False) -> Pairs:
        """The `k` priors of each level whose centre is nearest to the box's: all of a level that has fewer.

        Equal distances go to the lowest prior. Priors on no grid count as one level. Every box gets the same
        number of pairs, `count_nearest`.

        Args:
            k: priors per level, 1 or more.
            whole_cells: count cells instead, and list all anchors of each; on no grid a prior is a cell.

        Raises:
            ValueError: `k` is less than 1.
        """
        if k < 1:
            raise ValueError(f"expected k of 1 or more priors per level, got {k}")
        if self.index is None:
            return dense.nearest(self.centers, targets.boxes, k)
        return nearest.nearest(self.index, targets.boxes, k, whole_cells)

    def count_nearest(self, k: int, *, whole_cells: bool = False) -> int:
        """How many pairs `nearest` lists for each box."""
        if not self.levels:
            return min(k, len(self))
        return sum(min(k * (level.anchors if whole_cells else 1), len(level)) for level in self.levels)

    def overlapping(
        self, targets: Targets, min_iou: float | Float[Tensor, "G"], *, strict: bool = False
    ) -> Pairs:
        """Priors whose IoU with the box is at least `min_iou`; see `overlaps`, which also returns the IoU."""
        return self.overlaps(targets, min_iou, strict=strict)[0]

    def overlaps(
        self, targets: Targets, min_iou: float | Float[Tensor, "G"], *, strict: bool = False
    ) -> tuple[Pairs, Float[Tensor, "N"]]:
        """Priors whose IoU with the box is at least `min_iou`, and their IoU as `boxes.pair_iou` gives it.

        Args:
            min_iou: in [0, 1], for all boxes or for each; for 0 the IoU must be more than 0.
            strict: the IoU must be more than `min_iou`.

        Raises:
            ValueError: `min_iou` is out of range.
        """
        lowest, highest = _range(min_iou)
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(f"expected min_iou in [0, 1], got {lowest} to {highest}")
        if self.index is None:
            return dense.overlapping(self.boxes, targets.boxes, min_iou, strict)
        return overlapping.overlapping(self.index, targets.boxes, min_iou, strict)

    def best_overlaps(self, targets: Targets) -> tuple[Pairs, Float[Tensor, "N"]]:
        """For every box all priors of the greatest IoU it has with any prior, and that IoU.

        Equal IoUs, as `boxes.pair_iou` gives them, are all listed; a box that overlaps no prior has no pair.
        """
        if self.index is None:
            return dense.best_overlapping(self.boxes, targets.boxes)
        return overlapping.best_overlapping(self.index, targets.boxes)

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


def _range(values: float | Tensor) -> tuple[float, float]:
    """Lowest and highest value; 0 and 0 if there is none."""
    if not isinstance(values, Tensor):
        return values, values
    if not len(values):
        return 0.0, 0.0
    lowest, highest = torch.stack(values.aminmax()).tolist()
    return lowest, highest
