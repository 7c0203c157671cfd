"""The tables of a grid that the queries look into. Letters as in the package, and: M cells of all levels."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ..boxes import area
from ..structures import Level


@dataclass(frozen=True)
class GridIndex:
    """What the queries know of a grid.

    Args:
        start: first prior of each level.
        height: rows of each level.
        width: columns of each level.
        anchors: priors per cell of each level.
        stride: pixels per cell of each level, as it is called.
        step: pixels from column to column and from row to row, measured on the lines; the stride where there
            is but one.
        ys: centre of each row in pixels, padded with inf to the highest level.
        xs: centre of each column in pixels, padded with inf to the widest level.
        wh: anchor sizes in pixels, padded with the level's first anchor.
        boxes: all priors, laid out column by column, as `take_boxes` wants them.
        extent: largest coordinate of the priors' corners, without its sign.
        cell: first cell of each level.
        ragged: whether levels differ in their anchors.
        is_anchor: whether an entry of `wh` is an anchor, or padding.
        first: first prior of each cell.
        x1, y1, x2, y2: corners of each cell's anchors, padded as `wh`. Those in x are the same in every row
            of a level, those in y in every column.
        areas: as `boxes.area` gives them.
    """

    start: Int64[Tensor, "L"]
    height: Int64[Tensor, "L"]
    width: Int64[Tensor, "L"]
    anchors: Int64[Tensor, "L"]
    stride: Float[Tensor, "L"]
    step: Float64[Tensor, "L 2"]
    ys: Float[Tensor, "L H"]
    xs: Float[Tensor, "L W"]
    wh: Float[Tensor, "L A 2"]
    boxes: Float[Tensor, "P 4"]
    extent: Float[Tensor, ""]
    cell: Int64[Tensor, "L"]
    ragged: bool
    is_anchor: Bool[Tensor, "L A"]
    first: Int64[Tensor, "M"]
    x1: Float[Tensor, "M A"]
    y1: Float[Tensor, "M A"]
    x2: Float[Tensor, "M A"]
    y2: Float[Tensor, "M A"]
    areas: Float[Tensor, "M A"]

    @classmethod
    def build(
        cls,
        levels: tuple[Level, ...],
        boxes: Float[Tensor, "P 4"],
        centers: Float[Tensor, "P 2"],
        wh: Float[Tensor, "P 2"],
    ) -> "GridIndex":
        """Read rows, columns and anchors off the flattened priors (level → row → column → anchor)."""
        device = boxes.device
        count = len(levels)
        ys = torch.full((count, max(level.height for level in levels)), torch.inf, device=device)
        xs = torch.full((count, max(level.width for level in levels)), torch.inf, device=device)
        sizes = torch.empty((count, max(level.anchors for level in levels), 2), device=device)
        starts, cells, start = [], [], 0
        padded = torch.arange(sizes.shape[1], device=device)
        # Once per grid, not per batch.
        for number, level in enumerate(levels):
            end, row = start + len(level), level.width * level.anchors
            ys[number, : level.height] = centers[start:end:row, 1]
            xs[number, : level.width] = centers[start : start + row : level.anchors, 0]
            sizes[number] = wh[start]
            sizes[number, : level.anchors] = wh[start : start + level.anchors]
            starts.append(start)
            first = torch.arange(start, end, level.anchors, device=device)[:, None]
            cells.append(first + torch.where(padded < level.anchors, padded, 0))
            start = end
        shape = [
            starts,
            *([getattr(level, name) for level in levels] for name in ("height", "width", "anchors")),
        ]
        first, height, width, anchors = torch.tensor(shape, dtype=torch.int64, device=device).unbind()
        stride = torch.tensor([float(level.stride) for level in levels], device=device)
        step = torch.stack((_step(xs, width, stride), _step(ys, height, stride)), dim=1)
        columns = boxes.T.contiguous()
        priors = torch.cat(cells)  # (M, A)
        is_anchor, size = padded < anchors[:, None], height * width
        return cls(
            *(first, height, width, anchors, stride, step, ys, xs, sizes, columns.T, boxes.abs().amax()),
            *(size.cumsum(0) - size, not bool(is_anchor.all()), is_anchor),
            *(priors[:, 0].contiguous(), *columns[:, priors].unbind(), area(columns.T[priors])),
        )

    def __len__(self) -> int:
        return len(self.start)


def _step(
    lines: Float[Tensor, "L W"], length: Int64[Tensor, "L"], stride: Float[Tensor, "L"]
) -> Float64[Tensor, "L"]:
    """Distance between a level's evenly spaced lines."""
    last = lines.double().gather(1, length[:, None] - 1).squeeze(1)
    step = (last - lines[:, 0].double()) / (length - 1).clamp(min=1)
    return torch.where(length > 1, step, stride.double())
