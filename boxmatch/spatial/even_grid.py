"""Reading the grid off priors that somebody else has made."""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..structures import Level

TOLERANCE = 2.0**-22
"""Share of the largest coordinate by which a corner may be off: it is the rounded sum of rounded numbers."""


def centers_and_sizes(
    boxes: Float[Tensor, "P 4"], levels: tuple[Level, ...]
) -> tuple[Float[Tensor, "P 2"], Float[Tensor, "P 2"]]:
    """Centre and size of every prior on the grid that the boxes lie on.

    Raises:
        ValueError: the number of boxes is not that of the levels, or a box is not on an even grid.
    """
    counts = [len(level) for level in levels]
    if not levels or min(counts) < 1 or sum(counts) != len(boxes):
        raise ValueError(
            f"expected as many boxes as the levels have priors ({counts}, each 1 or more), got {len(boxes)}"
        )
    tolerance = TOLERANCE * float(boxes.abs().amax())
    centers, sizes, start = [], [], 0
    # Once per grid, not per batch.
    for number, (level, part) in enumerate(zip(levels, boxes.double().split(counts))):
        shape = (level.height, level.width, level.anchors)
        center, size = _fit(part.view(*shape, 4))
        fitted = torch.cat((center - size / 2, center + size / 2), dim=3).flatten(0, 2)
        # Written so that nan is wrong too.
        right = ((part - fitted).abs() <= tolerance) & _as_in_first_lines(part.view(*shape, 4)).flatten(0, 2)
        wrong = ~right.all(1)
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise ValueError(
                f"expected priors on an even grid of {level.height} rows × {level.width} columns × "
                f"{level.anchors} anchors on level {number}, got prior {start + first} at "
                f"{part[first].tolist()} instead of {fitted[first].tolist()}; the order must be level, row, "
                "column, anchor, the anchors of a cell must share its centre, those of a row y1 and y2 "
                "and those of a column x1 and x2, to the last bit; use Priors.from_boxes for boxes on no grid"
            )
        centers.append(center.expand(*shape, 2).reshape(-1, 2))
        sizes.append(size.expand(*shape, 2).reshape(-1, 2))
        start += len(part)
    return torch.cat(centers).to(boxes.dtype), torch.cat(sizes).to(boxes.dtype)


def _as_in_first_lines(boxes: Float64[Tensor, "H W A 4"]) -> Bool[Tensor, "H W A 4"]:
    """Whether each corner is that of the first row in x, and of the first column in y."""
    x_as_above, y_as_left = boxes == boxes[:1], boxes == boxes[:, :1]
    is_x = torch.tensor([True, False, True, False], device=boxes.device)
    return torch.where(is_x, x_as_above, y_as_left)


def _fit(
    boxes: Float64[Tensor, "H W A 4"],
) -> tuple[Float64[Tensor, "H W 1 2"], Float64[Tensor, "1 1 A 2"]]:
    """The even grid through the first and the last cell with the anchors of the first: centres and sizes."""
    height, width = boxes.shape[:2]
    low, high = boxes[..., 0, :].split(2, dim=2)
    first, last = ((low + high) / 2)[[0, -1], [0, -1]]
    x, y = (
        first[axis] + (last - first)[axis] / max(count - 1, 1) * torch.arange(count, device=boxes.device)
        for axis, count in enumerate((width, height))
    )
    # Lines that do not ascend fit no box: nan.
    x, y = (torch.where((line.diff() > 0).all(), line, torch.nan) for line in (x, y))
    y, x = torch.meshgrid(y, x, indexing="ij")
    size = (boxes[:1, :1, :, 2:] - boxes[:1, :1, :, :2]).clamp(min=0)
    return torch.stack((x, y), dim=-1).unsqueeze(2), size
