"""Pictures for the tests, and what is seen on them."""

from typing import Any

import numpy as np
from PIL import Image


def grey(width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), (120, 120, 120))


def count_color(picture: Image.Image, wanted: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == np.array(wanted)).all(-1).sum())


def as_array(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]
