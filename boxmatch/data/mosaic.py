"""From random numbers to a layout: which pictures lie where on the network's input."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from boxmatch.data.geometry import Layout, Placement, Size, fitted_size, turned_size, warp_points
from boxmatch.data.transforms import Augment


def random_layout(
    index: int,
    count: int,
    size_of: Callable[[int], Size],
    output: Size,
    options: Augment,
    random: np.random.Generator,
    *,
    mosaic: bool = True,
) -> Layout:
    """Mosaic or single picture, then scale, perspective, rotation, centred padding, random crop.

    All of it is decided on numbers; no pixel is touched before the place of each picture on the output is
    known.

    Args:
        index: the picture that the sample is about; the first of a mosaic.
        count: pictures in the data set.
        size_of: width and height of a picture.
        output: width and height of the result.
        mosaic: False where the schedule has switched mosaic off.
    """
    use_mosaic = random.random() < options.mosaic_p and mosaic
    pictures = [index, *other_pictures(index, count, random)] if use_mosaic else [index]
    turns = [int(random.integers(1, 4)) if random.random() < options.rot90_p else 0 for _ in pictures]
    sizes = [turned_size(size_of(picture), turn) for picture, turn in zip(pictures, turns, strict=True)]
    if use_mosaic:
        canvas, edges = four_around_a_point(sizes, output, options.mosaic_jitter, random)
    else:
        canvas, edges = output, [centred(fitted_size(sizes[0], output), output)]

    factor = 1 + random.uniform(*options.randscale) if random.random() < options.randscale_p else 1.0
    scaled = (max(1, round(canvas[0] * factor)), max(1, round(canvas[1] * factor)))
    warp = random_warp(scaled, options, random)
    crop = [random_crop(length, shown, random) for length, shown in zip(scaled, output, strict=True)]
    if warp is None:
        shift, window = crop, output
    else:
        shift, window, warp = seen_through(warp, crop, scaled, output)
    places = tuple(
        Placement(picture, scaled_edges(edge, factor, shift), turn)
        for picture, edge, turn in zip(pictures, edges, turns, strict=True)
    )
    return Layout(places, window, output, warp)


def other_pictures(index: int, count: int, random: np.random.Generator, wanted: int = 3) -> list[int]:
    """Pictures beside `index`, all different; drawn with repeats from all in a set that has too few."""
    if count <= wanted:
        return random.integers(0, count, wanted).tolist()
    others = random.choice(count - 1, wanted, replace=False)
    return (others + (others >= index)).tolist()


def four_around_a_point(
    sizes: list[Size], output: Size, jitter: float, random: np.random.Generator
) -> tuple[Size, list[tuple[int, int, int, int]]]:
    """A canvas of twice the output, and the edges of four pictures that touch one point.

    The point is the centre unless there is jitter. Order: top left, top right, bottom left, bottom right.
    Each picture is as large as it fits the output.
    """
    x, y = output
    if jitter:
        x, y = (round(length * (1 + random.uniform(-jitter, jitter))) for length in output)
    edges = []
    for corner, size in enumerate(sizes):
        width, height = fitted_size(size, output)
        left = x - width if corner in (0, 2) else x
        top = y - height if corner in (0, 1) else y
        edges.append((left, top, left + width, top + height))
    return (2 * output[0], 2 * output[1]), edges


def centred(size: Size, output: Size) -> tuple[int, int, int, int]:
    """Edges of a picture in the middle of the output."""
    left, top = (output[0] - size[0]) // 2, (output[1] - size[1]) // 2
    return left, top, left + size[0], top + size[1]


def random_crop(length: int, shown: int, random: np.random.Generator) -> int:
    """Where the shown stretch begins; on an axis that is too short minus half of what is missing."""
    if length <= shown:
        return -((shown - length) // 2)
    return int(random.integers(0, length - shown + 1))


def scaled_edges(
    edges: tuple[int, int, int, int], factor: float, shift: list[int]
) -> tuple[int, int, int, int]:
    """Edges on the scaled and shifted canvas; at least one pixel each way."""
    left, top = round(edges[0] * factor) - shift[0], round(edges[1] * factor) - shift[1]
    right, bottom = round(edges[2] * factor) - shift[0], round(edges[3] * factor) - shift[1]
    return left, top, max(right, left + 1), max(bottom, top + 1)


def random_warp(
    size: Size, options: Augment, random: np.random.Generator
) -> Float64[np.ndarray, "3 3"] | None:
    """Perspective, then rotation, on a canvas of this size; None where neither was drawn."""
    warp = None
    if random.random() < options.perspective_p:
        warp = random_perspective(size, options, random)
    if random.random() < options.rotate_p:
        turn = rotation(size, random.uniform(*options.rotate))
        warp = turn if warp is None else turn @ warp
    return warp


def random_perspective(
    size: Size, options: Augment, random: np.random.Generator
) -> Float64[np.ndarray, "3 3"]:
    """Each corner moves inwards by |normal(0, drawn scale)| of the size; what is between fills the canvas."""
    scale = random.uniform(*options.perspective)
    # Below 0.32 the four corners keep their order (the bound of Albumentations, with which the preset was
    # trained).
    inwards = np.abs(random.normal(0, scale, (4, 2))) % 0.32
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    moved = (corners + np.where(corners == 0, inwards, -inwards)) * size
    return homography(moved, corners * size)


def rotation(size: Size, degrees: float) -> Float64[np.ndarray, "3 3"]:
    """Rotation about the centre of a canvas, counter-clockwise as seen."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = size[0] / 2, size[1] / 2
    return np.array(
        [[cosine, sine, x - cosine * x - sine * y], [-sine, cosine, y + sine * x - cosine * y], [0, 0, 1]]
    )


def homography(
    source: Float64[np.ndarray, "4 2"], target: Float64[np.ndarray, "4 2"]
) -> Float64[np.ndarray, "3 3"]:
    """The projective map that takes four points to four points, no three of them on a line."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.append(np.linalg.solve(np.array(rows), target.reshape(-1)), 1.0).reshape(3, 3)


def seen_through(
    warp: Float64[np.ndarray, "3 3"], crop: list[int], canvas: Size, output: Size
) -> tuple[list[int], Size, Float64[np.ndarray, "3 3"]]:
    """The part of the canvas that a warped and cropped output shows: corner, size, and way to the output."""
    to_output = np.array([[1, 0, -crop[0]], [0, 1, -crop[1]], [0, 0, 1.0]]) @ warp
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64) * output
    seen = warp_points(corners, np.linalg.inv(to_output))
    low = np.clip(np.floor(seen.min(0)), 0, np.array(canvas) - 1).astype(int)
    high = np.clip(np.ceil(seen.max(0)), low + 1, np.array(canvas)).astype(int)
    from_window = np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1.0]])
    return low.tolist(), (int(high[0] - low[0]), int(high[1] - low[1])), to_output @ from_window
