"""Small picture sets for the tests: dark pictures with rectangles in the colour of their class."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from boxmatch.data.annotations import Annotations, from_columns
from boxmatch.data.batch import Sample

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
BACKGROUND = (30, 30, 30)


def drawn_set(
    folder: Path, count: int = 6, size: tuple[int, int] = (160, 120), *, suffix: str = "png", seed: int = 0
) -> Annotations:
    """Write `count` pictures with one rectangle per quarter, and describe them."""
    random = np.random.default_rng(seed)
    width, height = size
    names, boxes, labels, owner = [], [], [], []
    for number in range(count):
        image = Image.new("RGB", size, BACKGROUND)
        pen = ImageDraw.Draw(image)
        for quarter in range(4):
            x = int(random.integers(2, width // 6)) + quarter % 2 * width // 2
            y = int(random.integers(2, height // 6)) + quarter // 2 * height // 2
            right, bottom = (
                x + int(random.integers(width // 8, width // 4)),
                y + int(random.integers(height // 8, height // 4)),
            )
            label = int(random.integers(3))
            pen.rectangle((x, y, right - 1, bottom - 1), fill=COLORS[label])
            boxes.append((x, y, right, bottom))
            labels.append(label)
            owner.append(number)
        names.append(f"picture_{number}.{suffix}")
        image.save(folder / names[-1], quality=95)
    return from_columns(
        folder,
        names=names,
        sizes=np.tile(np.array(size), (count, 1)),
        image_ids=np.arange(count) + 100,
        image_of_box=np.array(owner),
        boxes=np.array(boxes, dtype=np.float32),
        labels=np.array(labels),
        ignore=np.zeros(len(labels), dtype=bool),
        object_ids=np.arange(1, len(labels) + 1),
        class_names=("red", "green", "blue"),
    )


def colored(image: torch.Tensor) -> np.ndarray:
    """(H, W) mask of the pixels that belong to a rectangle for more than half."""
    values = image.int()
    return (values.amax(0) - values.amin(0) > 120).numpy()


def area_within(boxes: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """(H, W) mask of the pixels whose centres lie in one of the boxes, grown by a margin."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    inside = np.zeros(x.shape, dtype=bool)
    for left, top, right, bottom in boxes:
        inside |= (x > left - margin) & (x < right + margin) & (y > top - margin) & (y < bottom + margin)
    return inside


def assert_boxes_follow_pixels(sample: Sample, *, filled: bool = True, margin: float = 1.5) -> None:
    """Every coloured pixel lies in a box, and every box is full of colour.

    Without `filled`: every box that is not cut by the border is touched by colour on all sides.
    """
    size = (sample.image.shape[2], sample.image.shape[1])
    mask = colored(sample.image)
    assert not (mask & ~area_within(sample.boxes, size, margin)).any()
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        inner = area_within(box[None], size, -margin)
        if filled and inner.any():
            assert mask[inner].mean() > 0.98
            assert (sample.image.argmax(0).numpy()[inner] == label).mean() > 0.98
        elif not filled and (box[:2] > margin).all() and (box[2:] < np.array(size) - margin).all():
            rows, columns = np.nonzero(mask & area_within(box[None], size, margin))
            reach = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(reach) - box).max() <= margin + 1
