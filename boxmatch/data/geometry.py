"""Where pictures lie on the network's input, and how their pixels and boxes get there.

Edges are continuous coordinates: the first pixel covers 0 to 1. A picture is resampled once, straight from
its own pixels into the output, and only the part that can be seen; boxes follow exactly what was done to
the pixels.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

Size = tuple[int, int]
"""Width and height in pixels."""

Edges = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

Fill = int | tuple[int, int, int]
"""A grey value, or red, green and blue."""

SIZE_STEP = 32  # the coarsest stride that the maps of every detector share without rounding


@dataclass(frozen=True)
class Placement:
    """One picture on the output.

    Args:
        picture: position in the data set.
        edges: where the edges of the whole picture lie, also outside of the output.
        quarter_turns: counter-clockwise turns by 90 degrees before it is placed.
    """

    picture: int
    edges: Edges
    quarter_turns: int = 0

    def visible(self, size: Size) -> Edges | None:
        """The part inside an output of this size, or None where nothing shows."""
        left, top, right, bottom = self.edges
        seen = (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1]))
        return seen if seen[0] < seen[2] and seen[1] < seen[3] else None


@dataclass(frozen=True)
class Layout:
    """A whole picture to be drawn: placements on a window, and the window's way to the output.

    Args:
        placements: pictures; later ones cover earlier ones.
        window: size on which they are placed.
        output: size of the result.
        warp: maps window coordinates to output coordinates; None where they are the same.
    """

    placements: tuple[Placement, ...]
    window: Size
    output: Size
    warp: Float64[np.ndarray, "3 3"] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Affine:
    """x -> scale * x + offset, per axis."""

    scale: tuple[float, float]
    offset: tuple[float, float]

    def __call__(self, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        return boxes * np.array(self.scale * 2, np.float32) + np.array(self.offset * 2, np.float32)


def fitted_size(picture: Size, output: Size) -> Size:
    """The largest size with the picture's proportions inside the output; at least one pixel each way."""
    factor = min(output[0] / picture[0], output[1] / picture[1])
    return max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor))


def letterbox(picture: int, picture_size: Size, output: Size) -> Layout:
    """The whole picture, as large as it fits, in the middle."""
    width, height = fitted_size(picture_size, output)
    left, top = (output[0] - width) // 2, (output[1] - height) // 2
    return Layout((Placement(picture, (left, top, left + width, top + height)),), output, output)


def whole(picture: int, output: Size) -> Layout:
    """The whole picture and nothing else."""
    return Layout((Placement(picture, (0, 0, *output)),), output, output)


def draw(canvas: UInt8[Tensor, "H W 3"], pixels: UInt8[Tensor, "h w 3"], placement: Placement) -> Affine:
    """Resample the visible part of a picture onto the canvas (bilinear, anti-aliased), in place.

    The part is cut at whole pixels of the source, so that nothing outside of it has to be touched; the map
    that comes back, from the turned picture's pixels to the canvas, is the one the pixels really took.

    Raises:
        ValueError: the picture does not show on the canvas.
    """
    seen = placement.visible((canvas.shape[1], canvas.shape[0]))
    if seen is None:
        raise ValueError(
            f"picture {placement.picture} at {placement.edges} is outside of the {tuple(canvas.shape)} canvas"
        )
    pixels = turned(pixels, placement.quarter_turns)
    horizontal = _source_span(placement.edges[0], placement.edges[2], seen[0], seen[2], pixels.shape[1])
    vertical = _source_span(placement.edges[1], placement.edges[3], seen[1], seen[3], pixels.shape[0])
    part = pixels[vertical[0] : vertical[1], horizontal[0] : horizontal[1]]
    width, height = seen[2] - seen[0], seen[3] - seen[1]
    if part.shape[:2] != (height, width):
        part = resample(part, (width, height))
    canvas[seen[1] : seen[3], seen[0] : seen[2]] = part
    scale_x, scale_y = width / (horizontal[1] - horizontal[0]), height / (vertical[1] - vertical[0])
    return Affine((scale_x, scale_y), (seen[0] - horizontal[0] * scale_x, seen[1] - vertical[0] * scale_y))


def resample(pixels: UInt8[Tensor, "h w 3"], size: Size) -> UInt8[Tensor, "H W 3"]:
    """The pixels at another width and height, bilinear and anti-aliased."""
    # The batch axis comes first and the permutation second: the other way round PyTorch does not see that
    # the channels lie last, and takes twice as long.
    planes = pixels[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size=(size[1], size[0]), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


def _source_span(start: int, stop: int, seen_start: int, seen_stop: int, length: int) -> tuple[int, int]:
    """Source pixels that fill the visible stretch of an axis where all `length` run from start to stop."""
    step = length / (stop - start)
    first = min(max(round((seen_start - start) * step), 0), length - 1)
    last = min(max(round((seen_stop - start) * step), first + 1), length)
    return first, last


def turned(pixels: UInt8[Tensor, "h w 3"], quarter_turns: int) -> UInt8[Tensor, "a b 3"]:
    """The picture turned counter-clockwise by 90 degrees as often as asked."""
    return torch.rot90(pixels, quarter_turns, (0, 1)).contiguous() if quarter_turns % 4 else pixels


def turned_size(size: Size, quarter_turns: int) -> Size:
    """Width and height after `turned`."""
    return (size[1], size[0]) if quarter_turns % 2 else size


def turned_boxes(
    boxes: Float32[np.ndarray, "n 4"], size: Size, quarter_turns: int
) -> Float32[np.ndarray, "n 4"]:
    """xyxy boxes of a picture of this size after `turned`."""
    left, top, right, bottom = boxes.T
    width, height = size
    match quarter_turns % 4:
        case 1:
            return np.stack([top, width - right, bottom, width - left], axis=1)
        case 2:
            return np.stack([width - right, height - bottom, width - left, height - top], axis=1)
        case 3:
            return np.stack([height - bottom, left, height - top, right], axis=1)
    return boxes


def warp_pixels(
    pixels: UInt8[Tensor, "h w 3"], warp: Float64[np.ndarray, "3 3"], size: Size, fill: Fill
) -> UInt8[Tensor, "H W 3"]:
    """The picture seen through a homography (source to result), bilinear; `fill` where the source ends."""
    back = np.linalg.inv(warp)
    coefficients = (back / back[2, 2]).reshape(-1)[:8].tolist()
    source = Image.fromarray(pixels.numpy())
    result = source.transform(
        size,
        Image.Transform.PERSPECTIVE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=(fill, fill, fill) if isinstance(fill, int) else fill,
    )
    return torch.from_numpy(np.array(result))


def warp_points(
    points: Float64[np.ndarray, "n 2"], warp: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "n 2"]:
    """Points (x, y) through a homography."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ warp.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def warp_boxes(
    boxes: Float32[np.ndarray, "n 4"], warp: Float64[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "n 4"]:
    """The upright boxes around the four warped corners of each box."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].astype(np.float64).reshape(-1, 2)
    moved = warp_points(corners, warp).reshape(-1, 4, 2)
    return np.concatenate([moved.min(1), moved.max(1)], axis=1).astype(np.float32)
