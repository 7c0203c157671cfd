"""Draw the pictures of the method pages, on one sample: python docs/methods/draw_methods.py [NAME …]

Writes pictures/<name>.png for each method, pictures/gallery.png with all of them side by side, and
pictures/explanation.png. Needs the extra `hungarian` for that method.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import boxmatch
from boxmatch import AnchorGrid, Assigner, PointGrid, Predictions, Priors, Targets
from boxmatch.visualize import GalleryEntry, draw_assignment, draw_explanation, draw_gallery

WIDTH, HEIGHT = 256, 192
CLASSES = 3
FOLDER = Path(__file__).parent / "pictures"
# Two that overlap, a small one inside a large one, a thin one, one cut by the border, one of 7 px.
BOXES = [
    [16.0, 40.0, 88.0, 112.0],
    [60.0, 72.0, 116.0, 120.0],
    [132.0, 20.0, 236.0, 148.0],
    [150.0, 36.0, 178.0, 62.0],
    [20.0, 150.0, 150.0, 158.0],
    [210.0, 160.0, 256.0, 192.0],
    [114.0, 22.0, 121.0, 29.0],
]
LABELS = [0, 1, 2, 0, 1, 2, 0]
SHADES = ["#7aa6c2", "#c2a37a", "#8fb58a", "#7aa6c2", "#c2a37a", "#8fb58a", "#7aa6c2"]
YOLO_ANCHORS = [
    [(10, 13), (16, 30), (33, 23)],
    [(30, 61), (62, 45), (59, 119)],
    [(116, 90), (156, 198), (373, 326)],
]
STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Method:
    """A page: the assigner with the priors it is meant for."""

    make: Callable[[], Assigner]
    grid: AnchorGrid


def squares(strides: tuple[int, ...] = STRIDES, size: float = 4.0) -> AnchorGrid:
    """One square of `size` strides per cell: half of ATSS's, because the sample is small."""
    return PointGrid(strides, size=size)


def yolo() -> AnchorGrid:
    """Three anchors per cell."""
    return AnchorGrid(YOLO_ANCHORS, STRIDES)


def points(center: float = 0.5) -> AnchorGrid:
    """Points with a square of one stride."""
    return PointGrid(STRIDES, center=center)


def retina() -> AnchorGrid:
    """Three shapes per cell, centres in the corners of the cells."""
    shapes = [(0.7, 1.4), (1.0, 1.0), (1.4, 0.7)]
    anchors = [[(4 * s * w, 4 * s * h) for w, h in shapes] for s in STRIDES]
    return AnchorGrid(anchors, STRIDES, center=0.0)


METHODS: dict[str, Method] = {
    "single_grid": Method(lambda: boxmatch.SingleGrid(), yolo()),
    "nearby_grid": Method(lambda: boxmatch.NearbyGrid(), yolo()),
    "all_grid": Method(lambda: boxmatch.AllGrid(), yolo()),
    "yolov3": Method(lambda: boxmatch.YOLOv3(), yolo()),
    "yolov5_ratio": Method(lambda: boxmatch.YOLOv5Ratio(), yolo()),
    "max_iou": Method(lambda: boxmatch.MaxIoU(), retina()),
    "grid_max_iou": Method(lambda: boxmatch.GridMaxIoU(), yolo()),
    "fcos_region": Method(
        lambda: boxmatch.FCOSRegion(ranges=((-1, 32), (32, 64), (64, float("inf")))), points()
    ),
    "atss": Method(lambda: boxmatch.ATSS(), squares()),
    "dynamic_atss": Method(lambda: boxmatch.DynamicATSS(), squares()),
    "paa": Method(lambda: boxmatch.PAA(), squares()),
    "dual_weight": Method(lambda: boxmatch.DualWeight(), points()),
    "auto_assign": Method(lambda: boxmatch.AutoAssign(num_classes=CLASSES), points(center=0.0)),
    "task_aligned": Method(lambda: boxmatch.TaskAligned(), points()),
    "sim_ota": Method(lambda: boxmatch.SimOTA(), points()),
    "ota": Method(lambda: boxmatch.OTA(), points()),
    "dynamic_soft_label": Method(lambda: boxmatch.DynamicSoftLabel(), points()),
    "uniform": Method(lambda: boxmatch.Uniform(), squares((16,))),
    "hungarian": Method(lambda: boxmatch.Hungarian(), points()),
    "random_assigner": Method(lambda: boxmatch.RandomAssigner(boxmatch.TaskAligned()), points()),
}


def sample_picture() -> Image.Image:
    """The objects as plain rectangles."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "#f4f1ea")
    draw = ImageDraw.Draw(picture)
    for (x1, y1, x2, y2), shade in zip(BOXES, SHADES, strict=True):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=shade)  # PIL counts the last pixel in
    return picture


def half_trained(priors: Priors, targets: Targets) -> Predictions:
    """What a network might say half-way: inside a box, that box with some error; elsewhere, nothing much."""
    generator = torch.Generator().manual_seed(1)
    count = len(priors)
    boxes = priors.boxes + 0.3 * priors.stride[:, None] * torch.randn(count, 4, generator=generator)
    logits = torch.randn(count, CLASSES, generator=generator) - 4.0
    by_size = (targets.boxes[:, 2:] - targets.boxes[:, :2]).prod(1).argsort(descending=True)
    for row in by_size.tolist():  # smaller boxes come last and win
        x1, y1, x2, y2 = targets.boxes[row].tolist()
        x, y = priors.centers.unbind(1)
        here = ((x > x1) & (x < x2) & (y > y1) & (y < y2)).nonzero().squeeze(1)
        middle = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
        half = torch.tensor([(x2 - x1) / 2, (y2 - y1) / 2])
        away = ((priors.centers[here] - middle) / half).square().sum(1)
        error = (0.06 + 0.25 * away)[:, None] * half.repeat(2)
        boxes[here] = targets.boxes[row] + error * torch.randn(len(here), 4, generator=generator)
        noise = torch.randn(len(here), generator=generator)
        logits[here, int(targets.labels[row])] = 2.0 - 4.0 * away + 0.5 * noise
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:] - 1), torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Predictions(
        logits=logits[None], deltas=torch.zeros(1, count, 4), boxes=torch.cat((low, high), dim=1)[None]
    )


def entry(name: str, targets: Targets, *, explain: bool = False) -> GalleryEntry:
    """Ask a method about the sample."""
    method = METHODS[name]
    assigner = method.make()
    priors = method.grid([(HEIGHT // s, WIDTH // s) for s in method.grid.strides])
    with torch.no_grad():
        assignment = assigner(priors, targets, half_trained(priors, targets), explain=explain)
    return GalleryEntry(type(assigner).__name__, assignment, priors)


def main(names: list[str]) -> None:
    """Draw the named methods, or everything."""
    FOLDER.mkdir(exist_ok=True)
    picture, targets = sample_picture(), Targets.from_lists([BOXES], [LABELS])
    entries = {name: entry(name, targets) for name in names or METHODS}
    for name, panel in entries.items():
        title = f"{panel.title}: {panel.assignment.stats()}"
        figure = draw_assignment(
            picture, targets, panel.assignment, panel.priors, title=title, panel_inches=4.6
        )
        figure.savefig(FOLDER / f"{name}.png", dpi=90)
        print(title)
    if names:
        return
    draw_gallery(picture, targets, list(entries.values())).savefig(FOLDER / "gallery.png", dpi=110)
    told = entry("atss", targets, explain=True)
    figure = draw_explanation(picture, targets, told.assignment, told.priors, 0, title="ATSS, blue box")
    figure.savefig(FOLDER / "explanation.png", dpi=100)


if __name__ == "__main__":
    main(sys.argv[1:])
