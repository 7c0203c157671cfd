"""Boxes with captions on a picture: every caption whole, inside, and off the others where there is room."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from boxmatch.visualize.palette import RGB, darker, font, text_color

LONGEST_NAME = 24
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """One box to draw.

    Args:
        box: xyxy in pixels of the picture.
        caption: text beside the box; empty for none.
        color: of the frame and of the caption's ground.
        dashed: broken frame instead of a whole one.
        hatched: diagonal lines inside, for regions that do not count.
    """

    box: Rectangle
    caption: str
    color: RGB
    dashed: bool = False
    hatched: bool = False


def draw_marks(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy of the picture with frames and captions; the first marks get the best places."""
    canvas = picture.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    longest = max(canvas.size)
    width = max(2, round(longest / 400))
    for mark in reversed(marks):
        _frame(draw, mark, width)
    size = min(max(11, round(longest / 55)), 40)
    taken: list[Rectangle] = []
    for mark in marks:
        if mark.caption:
            taken.append(_caption(draw, canvas.size, mark, size, width, taken))
    return canvas


def _frame(draw: ImageDraw.ImageDraw, mark: Mark, width: int) -> None:
    x1, y1, x2, y2 = mark.box
    if mark.hatched:
        _hatch(draw, mark.box, mark.color)
    if not mark.dashed:
        rim = (x1 - 1, y1 - 1, max(x1, x2) + 1, max(y1, y2) + 1)
        draw.rectangle(rim, outline=darker(mark.color), width=1)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=mark.color, width=width)
        return
    dash = 4 * width
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1.0)
        for begin in range(0, int(length) + 1, 2 * dash):
            part = [min(begin + step, length) / length for step in (0, dash)]
            points = [tuple(a + (b - a) * p for a, b in zip(start, end, strict=True)) for p in part]
            draw.line(
                [(points[0][0], points[0][1]), (points[1][0], points[1][1])], fill=mark.color, width=width + 1
            )


def _hatch(draw: ImageDraw.ImageDraw, box: Rectangle, color: RGB, step: int = 8) -> None:
    x1, y1, x2, y2 = box
    height = y2 - y1
    for shift in range(0, int(x2 - x1 + height), step):
        left = max(x1 + shift - height, x1)
        right = min(x1 + shift, x2)
        draw.line([(left, y1 + shift - (left - x1)), (right, y1 + shift - (right - x1))], fill=color, width=1)


def _caption(
    draw: ImageDraw.ImageDraw,
    picture: tuple[int, int],
    mark: Mark,
    size: int,
    line: int,
    taken: list[Rectangle],
) -> Rectangle:
    """Draw one caption at its best free place and return the place."""
    letters = font(size)
    text = _shorten(draw, mark.caption, picture[0] - 6, size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=letters)
    width, height = right - left + 6, bottom - top + 4
    place = _best_place(mark.box, (width, height), picture, line, taken)
    # Rims keep caption and frame apart from a picture of their own colour.
    draw.rectangle(place, fill=mark.color, outline=darker(mark.color))
    draw.text((place[0] + 3 - left, place[1] + 2 - top), text, fill=text_color(mark.color), font=letters)
    return place


def short_name(name: str) -> str:
    """A class name for a caption: longer ones would cover the picture."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _shorten(draw: ImageDraw.ImageDraw, text: str, room: float, size: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if draw.textlength(text, font=font(size)) <= room:
        return text
    kept = text
    while kept and draw.textlength(kept + "…", font=font(size)) > room:
        kept = kept[:-1]
    return kept + "…"


def _best_place(
    box: Rectangle, size: tuple[float, float], picture: tuple[int, int], line: int, taken: list[Rectangle]
) -> Rectangle:
    """The first place around the box that is free; else the one that covers least of the earlier captions."""
    x1, y1, x2, y2 = box
    width, height = size
    corners = (
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y2),
        (x2 - width, y2),
        (x1 + line, y1 + line),
        (x2 - width - line, y1 + line),
        (x1 + line, y2 - height - line),
        (x2 - width - line, y2 - height - line),
        (x1 - width, y1),
        (x2, y1),
    )
    best, least = None, float("inf")
    for number, (left, top) in enumerate(corners):
        inside_left = min(max(left, 0.0), max(picture[0] - 1 - width, 0.0))
        inside_top = min(max(top, 0.0), max(picture[1] - 1 - height, 0.0))
        place = (inside_left, inside_top, inside_left + width, inside_top + height)
        # The farther a place had to be pushed into the picture the worse it is; earlier corners are better.
        pushed = abs(inside_left - left) + abs(inside_top - top)
        cost = 10 * sum(_overlap(place, other) for other in taken) + pushed + number
        if cost < least:
            best, least = place, cost
    return best if best is not None else (0.0, 0.0, width, height)


def _overlap(a: Rectangle, b: Rectangle) -> float:
    """Common area of two rectangles in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
