"""Box refinement of DW: each side of a box is read again near the middle of that side."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from boxmatch.models.deformable import convolve_at

Border = Literal["zeros", "clamp"]


def check_border(border: str) -> None:
    """Raise ValueError for an unknown border rule."""
    if border not in get_args(Border):
        raise ValueError(f"expected border in {get_args(Border)}, got {border!r}")


def refine_distances(
    distances: Float[Tensor, "B 4 H W"],
    offsets: Float[Tensor, "B 8 H W"],
    stride: float,
    border: Border = "zeros",
) -> Float[Tensor, "B 4 H W"]:
    """Distances to the sides, each side taken from the prediction of a place near the middle of that side.

    The box at a cell gives four absolute sides. The left side is read from the left-side map at the cell
    half-way up the box's left side, moved by a learned offset, and so for the others; bilinearly, in float32.
    Gradients flow into the maps and through the places.

    Args:
        distances: left, top, right, bottom in pixels, from the cell's centre, 0 or more.
        offsets: learned (dy, dx) in cells for left, top, right, bottom.
        stride: pixels per cell.
        border: "zeros" reads 0 outside the map, as published: near the right and bottom border sides then
            collapse to 0. "clamp" reads the nearest cell instead.

    Returns:
        Refined distances from the original centre, 0 or more.

    Raises:
        ValueError: the border rule is unknown.

    Source: Li et al. 2022 (DW), box refinement; strongwolf/DW, `dw_head.py`.
    """
    check_border(border)
    with torch.autocast(distances.device.type, enabled=False):
        distances, offsets = distances.float(), offsets.float()
        center, sign = _centers(distances, stride), _outward(distances)
        sides = center + sign * distances
        places = reading_places(distances, offsets, stride)
        if border == "clamp":
            places = _clamped(places)
        read = convolve_at(sides, places, sides.new_ones((4, 1, 1, 1)))
        return (sign * (read - center)).relu()


def reading_places(
    distances: Float[Tensor, "B 4 H W"], offsets: Float[Tensor, "B 8 H W"], stride: float
) -> Float[Tensor, "B 8 H W"]:
    """(dy, dx) in cells from each cell to where its left, top, right and bottom side is read.

    Args:
        distances: see `refine_distances`.
        offsets: see `refine_distances`.
        stride: pixels per cell.
    """
    # Along its own axis a side is read where it lies: left and right by columns, top and bottom by rows.
    cells, own_axis = _outward(distances) * distances / stride, torch.zeros_like(offsets)
    own_axis[:, 1::4], own_axis[:, 2::4] = cells[:, 0::2], cells[:, 1::2]
    return offsets + own_axis


def _outward(distances: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "4 1 1"]:
    """Sign of the direction that each side lies in."""
    return distances.new_tensor([-1.0, -1.0, 1.0, 1.0])[:, None, None]


def _centers(maps: Float[Tensor, "B K H W"], stride: float) -> Float[Tensor, "4 H W"]:
    """x, y, x, y of every cell's centre in pixels."""
    rows, columns = _cells(maps)
    x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
    return torch.stack(torch.broadcast_tensors(x, y) * 2)


def _cells(maps: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "H 1"], Float[Tensor, "W"]]:
    """Numbers of the rows and of the columns."""
    height, width = maps.shape[2:]
    rows, columns = (torch.arange(n, device=maps.device, dtype=torch.float32) for n in (height, width))
    return rows[:, None], columns


def _clamped(places: Float[Tensor, "B 8 H W"]) -> Float[Tensor, "B 8 H W"]:
    """Offsets shortened so that every place lies on the map."""
    rows, columns = _cells(places)
    down = (places[:, 0::2] + rows).clamp(min=0, max=len(rows) - 1) - rows
    right = (places[:, 1::2] + columns).clamp(min=0, max=len(columns) - 1) - columns
    return torch.stack((down, right), dim=2).flatten(1, 2)
