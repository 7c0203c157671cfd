"""The tables of a grid that the queries look into."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..structures import Level


@dataclass(frozen=True)
class GridIndex:
    """What the queries know of a grid.

    Args:
        start: first prior of each level.
        height: rows of each level.
        width: columns of each level.
        anchors: priors per cell of each level.
        stride: pixels per cell of each level.
        ys: centre of each row in pixels, padded with inf to the highest level.
        xs: centre of each column in pixels, padded with inf to the widest level.
        wh: anchor sizes in pixels, padded with the level's first anchor.
        boxes: all priors.
        extent: largest coordinate of the priors' corners, without its sign.
    """

    start: Int64[Tensor, "L"]
    height: Int64[Tensor, "L"]
    width: Int64[Tensor, "L"]
    anchors: Int64[Tensor, "L"]
    stride: Float[Tensor, "L"]
    ys: Float[Tensor, "L H"]
    xs: Float[Tensor, "L W"]
    wh: Float[Tensor, "L A 2"]
    boxes: Float[Tensor, "P 4"]
    extent: Float[Tensor, ""]

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
        starts, start = [], 0
        # Once per grid, not per batch.
        for number, level in enumerate(levels):
            end, row = start + len(level), level.width * level.anchors
            ys[number, : level.height] = centers[start:end:row, 1]
            xs[number, : level.width] = centers[start : start + row : level.anchors, 0]
            sizes[number] = wh[start]
            sizes[number, : level.anchors] = wh[start : start + level.anchors]
            starts.append(start)
            start = end
        shape = [
            starts,
            *([getattr(level, name) for level in levels] for name in ("height", "width", "anchors")),
        ]
        first, height, width, anchors = torch.tensor(shape, dtype=torch.int64, device=device).unbind()
        stride = torch.tensor([float(level.stride) for level in levels], device=device)
        return cls(first, height, width, anchors, stride, ys, xs, sizes, boxes, boxes.abs().amax())

    def __len__(self) -> int:
        return len(self.start)
