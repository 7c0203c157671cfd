"""Detections on their picture, and pages of predictions beside the truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from boxmatch.metrics import GroundTruth
from boxmatch.structures import Detections
from boxmatch.visualize.labels import Mark, draw_marks, short_name
from boxmatch.visualize.palette import ALARM, color, font

# Pictures smaller than this are enlarged by a whole factor, so that captions can be read.
SMALLEST_SIDE = 400
GREY = (130, 130, 130)


@dataclass(frozen=True)
class PageEntry:
    """One picture of a page of predictions.

    Args:
        image: the picture in the file's own pixels.
        truth: its boxes, in the same pixels.
        detections: what the detector found, in the same pixels.
        name: caption.
    """

    image: Image.Image
    truth: GroundTruth
    detections: Detections
    name: str


def as_picture(image: Image.Image | UInt8[Tensor, "3 H W"]) -> Image.Image:
    """A Pillow picture of an RGB tensor; Pillow pictures pass."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def draw_detections(
    image: Image.Image | UInt8[Tensor, "3 H W"],
    detections: Detections,
    class_names: Sequence[str],
    *,
    min_score: float = 0.0,
) -> Image.Image:
    """A copy of the picture with box, name and score of each detection.

    Args:
        image: the picture; small ones (longest side below 400 px) are enlarged by a whole factor.
        detections: boxes in pixels of `image`.
        class_names: names in the order of the labels.
        min_score: detections below are left out.
    """
    picture = as_picture(image)
    factor = _enlargement(picture)
    kept = detections.scores >= min_score
    marks = [
        Mark(_scaled(box, factor), f"{short_name(class_names[label])} {score:.2f}", color(label))
        for box, label, score in zip(
            detections.boxes[kept].tolist(),
            detections.labels[kept].tolist(),
            detections.scores[kept].tolist(),
        )
    ]
    return draw_marks(_enlarge(picture, factor), marks)


def draw_predictions_page(
    entries: Sequence[PageEntry],
    class_names: Sequence[str],
    *,
    min_score: float = 0.3,
    columns: int = 2,
    width: int = 400,
) -> Image.Image:
    """A page of pictures, each twice: with its true boxes, and with the predictions.

    Missed boxes on the left and false alarms on the right are dashed red. A prediction is right if it has the
    class of a true box, IoU 0.5 or more with it, and no better-scored prediction took it.

    Args:
        entries: the pictures, in reading order.
        class_names: names in the order of the labels.
        min_score: predictions below are left out.
        columns: picture pairs in a row.
        width: width of one picture on the page, in pixels.

    Raises:
        ValueError: there are no pictures.
    """
    if not entries:
        raise ValueError("a page of predictions needs at least one picture, got none")
    tiles = [_pair(entry, class_names, min_score, width) for entry in entries]
    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    gap = 16
    legend = (
        f"left: truth    right: predictions with score ≥ {min_score:g}    "
        "dashed red: missed (left), false alarm (right) at IoU 0.5    hatched: does not count"
    )
    page_width = columns * (2 * width + 4 + gap) + gap
    lines = _wrap(legend, page_width - 2 * gap, 14)
    head = 20 * len(lines) + gap
    page = Image.new("RGB", (page_width, head + sum(heights) + gap * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((gap, gap // 2 + 20 * number), line, fill="black", font=font(14))
    top = head
    for row, height in zip(rows, heights):
        for column, tile in enumerate(row):
            page.paste(tile, (gap + column * (2 * width + 4 + gap), top))
        top += height + gap
    return page


def _pair(entry: PageEntry, class_names: Sequence[str], min_score: float, width: int) -> Image.Image:
    """Truth and predictions of one picture side by side, with its name above."""
    kept = entry.detections.scores >= min_score
    detections = Detections(
        entry.detections.boxes[kept], entry.detections.scores[kept], entry.detections.labels[kept]
    )
    found, right = match_detections(entry.truth, detections)
    picture = as_picture(entry.image)
    factor = width / picture.width
    scaled = picture.resize((width, max(1, round(picture.height * factor))), Image.Resampling.BILINEAR)
    truth_marks = [
        Mark(_scaled(box, factor), name, shade, dashed=not (hit or ignore), hatched=ignore)
        for box, name, shade, hit, ignore in zip(
            entry.truth.boxes.tolist(),
            [
                "" if i else short_name(class_names[n])
                for n, i in zip(entry.truth.labels.tolist(), entry.truth.ignore.tolist())
            ],
            _shades(entry.truth.labels, found | entry.truth.ignore.numpy()),
            found.tolist(),
            entry.truth.ignore.tolist(),
        )
    ]
    marks = [
        Mark(_scaled(box, factor), f"{short_name(class_names[label])} {score:.2f}", shade, dashed=not hit)
        for box, label, score, shade, hit in zip(
            detections.boxes.tolist(),
            detections.labels.tolist(),
            detections.scores.tolist(),
            _shades(detections.labels, right),
            right.tolist(),
        )
    ]
    tile = Image.new("RGB", (2 * width + 4, scaled.height + 20), "white")
    name = entry.name if len(entry.name) <= width // 5 else "…" + entry.name[-width // 5 :]
    ImageDraw.Draw(tile).text((0, 2), name, fill="black", font=font(12))
    tile.paste(draw_marks(scaled, truth_marks), (0, 20))
    tile.paste(draw_marks(scaled, marks), (width + 4, 20))
    return tile


def match_detections(
    truth: GroundTruth, detections: Detections, min_iou: float = 0.5
) -> tuple[Bool[np.ndarray, "G"], Bool[np.ndarray, "K"]]:
    """Which true boxes were found and which detections are right or excused by an ignore region.

    Best score first, each detection takes the free true box of its class with the greatest IoU.
    """
    boxes, truths = detections.boxes.double().numpy(), truth.boxes.double().numpy()
    corner = np.minimum(boxes[:, None, 2:], truths[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], truths[None, :, :2]
    )
    inter = corner.clip(min=0).prod(-1)  # (K, G); one picture at a time, for drawing only
    area, truth_area = (boxes[:, 2:] - boxes[:, :2]).prod(-1), (truths[:, 2:] - truths[:, :2]).prod(-1)
    iou = inter / np.maximum(area[:, None] + truth_area[None] - inter, 1e-9)
    ignore = truth.ignore.numpy()
    excused = (inter / np.maximum(area[:, None], 1e-9) >= min_iou)[:, ignore].any(1)
    same = (
        (detections.labels.numpy()[:, None] == truth.labels.numpy()[None]) & ~ignore[None] & (iou >= min_iou)
    )
    found, right = np.zeros(len(truths), dtype=bool), np.zeros(len(boxes), dtype=bool)
    # One after another: who comes first takes a box away from who comes later.
    for row in np.argsort(-detections.scores.numpy(), kind="stable"):
        free = np.where(same[row] & ~found, iou[row], -1.0)
        if len(free) and free.max() >= 0:
            found[free.argmax()] = right[row] = True
    return found, right | excused


def _shades(labels: Tensor, good: Bool[np.ndarray, "n"]) -> list[tuple[int, int, int]]:
    return [color(label) if fine else ALARM for label, fine in zip(labels.tolist(), good.tolist())]


def _enlargement(picture: Image.Image) -> int:
    return max(1, math.ceil(SMALLEST_SIDE / max(picture.size)))


def _enlarge(picture: Image.Image, factor: int) -> Image.Image:
    if factor == 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BILINEAR)


def _scaled(box: Sequence[float], factor: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(side) * factor for side in box)
    return x1, y1, x2, y2


def _wrap(text: str, room: float, size: int) -> list[str]:
    """The parts of a legend (separated by four spaces) in as few lines as fit."""
    lines: list[str] = []
    for part in text.split("    "):
        joined = f"{lines[-1]}    {part}" if lines else part
        if lines and font(size).getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines
