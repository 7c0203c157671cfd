"""The built-in data set: pictures of shapes, drawn from a seed and written in VOC layout as a template."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw

CORNERS = {"square": 4, "triangle": 3, "star": 5}
SHAPES = ("circle", *CORNERS)
SUPERSAMPLING = 2  # drawn at twice the size and averaged: Pillow draws without antialiasing
STAR_WAIST = 0.45  # inner radius of a star, of its outer one
MOST_COVERED = 0.35  # a shape hides at most this share of another one's box
LEAST_INSIDE = 0.6  # share of a shape's box that must lie in the picture
TRIES = 30  # places tried for one shape before it is given up
JPEG_QUALITY = 90
# Share of the pictures, number of shapes, and their radius as share of the picture's size.
SCENES = (
    (0.06, (0, 0), (0.1, 0.2)),  # empty
    (0.54, (1, 5), (0.08, 0.22)),  # ordinary
    (0.20, (3, 9), (0.04, 0.09)),  # small
    (0.20, (10, 20), (0.05, 0.11)),  # crowded
)


@dataclass(frozen=True)
class Shape:
    """One drawn shape; the box is xyxy in pixels, cut at the picture's border."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool


def draw_shapes(
    folder: str | Path,
    *,
    train: int = 240,
    val: int = 60,
    size: int = 192,
    seed: int = 0,
    shapes: Sequence[str] = ("circle", "square", "triangle"),
) -> Path:
    """Write pictures, annotations, image sets and `classes.txt` into a folder.

    Overlapping, small, cut, crowded and no shapes at all occur. Picture i is drawn from (seed, i) alone: it
    stays the same when more pictures are asked for. The validation pictures follow the training ones.

    Args:
        folder: made if needed; files of an earlier call are overwritten.
        train: number of training pictures.
        val: number of validation pictures.
        size: width and height in pixels, 64 or more.
        shapes: the classes, of "circle", "square", "triangle", "star".

    Returns:
        The folder, ready to be read as VOC root.

    Raises:
        ValueError: an unknown shape, a size under 64, or a negative number of pictures.
    """
    unknown = [name for name in shapes if name not in SHAPES]
    if unknown or not shapes or size < 64 or min(train, val) < 0:
        raise ValueError(
            f"expected shapes of {SHAPES}, a size of 64 or more and no negative counts, "
            f"got shapes={list(shapes)}, size={size}, train={train}, val={val}"
        )
    folder = Path(folder)
    year = folder / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (year / part).mkdir(parents=True, exist_ok=True)
    names = [f"{number:06d}" for number in range(1, train + val + 1)]
    for number, name in enumerate(names):
        image, drawn = draw_scene(np.random.default_rng((seed, number)), size, shapes)
        image.save(year / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY)
        (year / "Annotations" / f"{name}.xml").write_text(
            voc_xml(f"{name}.jpg", size, drawn), encoding="utf-8"
        )
    for image_set, members in (("train", names[:train]), ("val", names[train:]), ("trainval", names)):
        text = "".join(f"{name}\n" for name in members)
        (year / "ImageSets" / "Main" / f"{image_set}.txt").write_text(text, encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in shapes), encoding="utf-8")
    return folder


def draw_scene(
    random: np.random.Generator, size: int, shapes: Sequence[str]
) -> tuple[Image.Image, list[Shape]]:
    """One picture and what is in it; later shapes lie over earlier ones."""
    _, counts, radii = SCENES[random.choice(len(SCENES), p=[share for share, _, _ in SCENES])]
    background = _background(random, size)
    canvas = Image.fromarray(background).resize((size * SUPERSAMPLING,) * 2, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    ground = background.mean(axis=(0, 1))
    drawn: list[Shape] = []
    for _ in range(random.integers(counts[0], counts[1] + 1)):
        name = shapes[int(random.integers(len(shapes)))]
        for _ in range(TRIES):
            outline = _outline(random, name, size, radii)
            shape = _cut(name, outline, size)
            if shape is not None and all(_is_visible(other.box, shape.box) for other in drawn):
                fill, edge = _colors(random, ground)
                pen.polygon(
                    (outline * SUPERSAMPLING).ravel().tolist(), fill=fill, outline=edge, width=SUPERSAMPLING
                )
                drawn.append(shape)
                break
    return canvas.reduce(SUPERSAMPLING), drawn


def voc_xml(file: str, size: int, shapes: Sequence[Shape]) -> str:
    """An annotation in the form of Pascal VOC: pixels counted from 1, ends inclusive."""
    objects = "".join(
        f"""
  <object>
    <name>{escape(shape.name)}</name>
    <pose>Unspecified</pose>
    <truncated>{int(shape.truncated)}</truncated>
    <difficult>0</difficult>
    <bndbox>
      <xmin>{shape.box[0] + 1}</xmin>
      <ymin>{shape.box[1] + 1}</ymin>
      <xmax>{shape.box[2]}</xmax>
      <ymax>{shape.box[3]}</ymax>
    </bndbox>
  </object>"""
        for shape in shapes
    )
    return f"""<annotation>
  <folder>JPEGImages</folder>
  <filename>{escape(file)}</filename>
  <size>
    <width>{size}</width>
    <height>{size}</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>{objects}
</annotation>
"""


def _background(random: np.random.Generator, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """A gradient between two colours in any direction, coarse stains and fine noise."""
    angle = random.uniform(0, 2 * math.pi)
    steps = np.linspace(-0.5, 0.5, size)
    slope = 0.5 + (math.cos(angle) * steps[None, :] + math.sin(angle) * steps[:, None]) / math.sqrt(2)
    start = random.uniform(40, 215, 3)
    end = (start + random.uniform(-50, 50, 3)).clip(0, 255)
    stains = random.normal(0, 1, (6, 6)).astype(np.float32)
    coarse = np.asarray(Image.fromarray(stains).resize((size, size), Image.Resampling.BICUBIC))
    noise = random.normal(0, random.uniform(2, 10), (size, size, 1))
    pixels = start + slope[..., None] * (end - start) + coarse[..., None] * random.uniform(0, 10) + noise
    return pixels.clip(0, 255).astype(np.uint8)


def _outline(
    random: np.random.Generator, name: str, size: int, radii: tuple[float, float]
) -> Float64[np.ndarray, "n 2"]:
    """Corners of a shape at a random place, radius and angle, in pixels."""
    radius = random.uniform(*radii) * size
    centre = random.uniform(0, size, 2)
    turn = random.uniform(0, 2 * math.pi)
    corners = CORNERS.get(name, 48)  # a circle: 48 corners are round at every size that is drawn
    distance = np.full(corners, radius)
    if name == "star":
        distance = np.tile([radius, radius * STAR_WAIST], corners)
    angles = turn + np.arange(len(distance)) * 2 * math.pi / len(distance)
    return centre + distance[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cut(name: str, outline: Float64[np.ndarray, "n 2"], size: int) -> Shape | None:
    """The shape with its box in whole pixels, or None when too little of it lies in the picture."""
    low, high = np.floor(outline.min(0)), np.ceil(outline.max(0))
    inside = np.concatenate([low.clip(0, size), high.clip(0, size)])
    share = np.prod(inside[2:] - inside[:2]) / np.prod(high - low)
    if share < LEAST_INSIDE:
        return None
    x1, y1, x2, y2 = inside.astype(int).tolist()
    return Shape(name, (x1, y1, x2, y2), truncated=bool(share < 1))


def _is_visible(below: tuple[int, int, int, int], above: tuple[int, int, int, int]) -> bool:
    """Whether neither of two boxes hides too much of the other."""
    width = min(below[2], above[2]) - max(below[0], above[0])
    height = min(below[3], above[3]) - max(below[1], above[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (below, above))
    return width <= 0 or height <= 0 or width * height <= MOST_COVERED * smaller


def _colors(
    random: np.random.Generator, ground: Float64[np.ndarray, "3"]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Fill and edge, the fill at least 80 grey levels away from the background's mean colour."""
    fill = np.zeros(3)
    for _ in range(TRIES):
        hsv = random.uniform(0, 1), random.uniform(0.3, 1), random.uniform(0.3, 1)
        fill = np.array(colorsys.hsv_to_rgb(*hsv)) * 255
        if np.abs(fill - ground).max() > 80:
            break
    edge = fill * random.uniform(0.4, 0.9)
    return _rgb(fill), _rgb(edge)


def _rgb(color: Float64[np.ndarray, "3"]) -> tuple[int, int, int]:
    red, green, blue = color.astype(int).tolist()
    return red, green, blue
