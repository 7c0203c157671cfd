"""Colours and letters of all pictures."""

import colorsys
from functools import cache
from pathlib import Path

from PIL import ImageFont

RGB = tuple[int, int, int]

# Told apart on photographs and by most colour-blind eyes: Okabe & Ito 2008 without black, then in between.
_FIRST: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (148, 103, 189),
    (23, 190, 207),
    (188, 189, 34),
)
# Further colours step around the colour circle by the golden ratio, so that neighbours differ.
_GOLDEN = 0.618034

ALARM: RGB = (220, 20, 30)
"""Reserved for what went wrong: boxes without a positive, missed and false boxes."""


def color(index: int) -> RGB:
    """The colour of a class or a box; any index has one."""
    if index < len(_FIRST):
        return _FIRST[index]
    step = index - len(_FIRST)
    # Hues from orange to magenta: red stays free for ALARM.
    hue = 0.08 + 0.84 * ((step * _GOLDEN) % 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if step % 2 else 0.55, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def unit_color(index: int) -> tuple[float, float, float]:
    """The same colour with parts in [0, 1], as matplotlib wants it."""
    red, green, blue = color(index)
    return red / 255, green / 255, blue / 255


def text_color(background: RGB) -> RGB:
    """Black or white, whichever reads better on `background` (Rec. 601 luma)."""
    luma = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    return (0, 0, 0) if luma > 130 else (255, 255, 255)


def darker(shade: RGB) -> RGB:
    """The same hue at not quite half the brightness, for rims."""
    red, green, blue = (round(0.45 * part) for part in shade)
    return red, green, blue


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans of matplotlib: it has Latin, Greek and Cyrillic letters, which Pillow's own font lacks."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size) if path.is_file() else ImageFont.load_default(size)
