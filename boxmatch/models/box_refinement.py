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
        height, width = distances.shape[2:]
        rows = torch.arange(height, device=distances.device, dtype=torch.float32)[:, None]
        columns = torch.arange(width, device=distances.device, dtype=torch.float32)
        x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
        sign = distances.new_tensor([-1.0, -1.0, 1.0, 1.0])[:, None, None]
        center = torch.stack((x.expand(height, width), y.expand(height, width)) * 2)  # x, y, x, y
        sides = center + sign * distances
        # Along its own axis a side is read where it lies: left and right by columns, top and bottom by rows.
        own_axis = torch.zeros_like(offsets)
        own_axis[:, 1::4] = sign[0::2] * distances[:, 0::2] / stride
        own_axis[:, 2::4] = sign[1::2] * distances[:, 1::2] / stride
        places = offsets + own_axis
        if border == "clamp":
            places = _clamped(places, rows, columns)
        weight = sides.new_ones((4, 1, 1, 1))
        read = convolve_at(sides, places, weight)
        return (sign * (read - center)).relu()


def _clamped(
    places: Float[Tensor, "B 8 H W"], rows: Float[Tensor, "H 1"], columns: Float[Tensor, "W"]
) -> Float[Tensor, "B 8 H W"]:
    """Offsets shortened so that every place lies on the map."""
    down = (places[:, 0::2] + rows).clamp(min=0, max=len(rows) - 1) - rows
    right = (places[:, 1::2] + columns).clamp(min=0, max=len(columns) - 1) - columns
    return torch.stack((down, right), dim=2).flatten(1, 2)
