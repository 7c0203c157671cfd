"""The inputs that assigners are timed on: sizes of published detectors, boxes like those of COCO.

Letters: B images, G boxes of an image, P priors, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxmatch.boxes import area, box_centers, box_sizes
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.spatial.pieces import in_pieces
from boxmatch.structures import Predictions, Targets

CLASSES = 80
"""Of COCO."""

MEDIAN_SIDE, SIDE_SIGMA, ASPECT_SIGMA = 52.0, 1.0, 0.45
"""Boxes of COCO, about: log-normal sides with this median on 640 × 480 px, and log-normal aspect ratios."""

INSIDE_JITTER, OUTSIDE_JITTER = 0.15, 0.30
"""Errors of a half-trained network in shares of the side: where it sees an object, and elsewhere."""

YOLO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""COCO-clustered anchors of YOLOv3 in pixels, the default of all systems in this package."""


@dataclass(frozen=True)
class Kind:
    """A size of input with its priors.

    Args:
        title: for people.
        height: of the picture in pixels.
        strides: pixels per cell of each level.
        anchors: (width, height) of the anchors of each level, pixels.
        center: where in its cell a prior lies, in strides.
        queries: number of priors on no grid, taken evenly from the others; 0 keeps the grid.
    """

    title: str
    height: int
    width: int
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    center: float = 0.5
    queries: int = 0

    def priors(self, device: torch.device | str = "cpu") -> Priors:
        """Those of all levels."""
        sizes = [(math.ceil(self.height / stride), math.ceil(self.width / stride)) for stride in self.strides]
        priors = AnchorGrid(self.anchors, self.strides, center=self.center)(sizes, device)
        if not self.queries:
            return priors
        rows = torch.arange(self.queries, device=device) * len(priors) // self.queries
        return Priors.from_boxes(priors.boxes[rows])


def _squares(strides: Sequence[int], *times: float) -> tuple[tuple[tuple[float, float], ...], ...]:
    return tuple(tuple((k * stride, k * stride) for k in times) for stride in strides)


def _retina_anchors(strides: Sequence[int]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Three ratios of height to width, three scales per octave; RetinaNet, sec. 4."""
    shapes = [
        (4 * 2 ** (octave / 3) * ratio**-0.5, 4 * 2 ** (octave / 3) * ratio**0.5)
        for ratio in (0.5, 1.0, 2.0)
        for octave in range(3)
    ]
    return tuple(tuple((stride * w, stride * h) for w, h in shapes) for stride in strides)


_PYRAMID, _YOLO = (8, 16, 32, 64, 128), (8, 16, 32)

KINDS: dict[str, Kind] = {
    "atss22k": Kind("800 × 1344 px, 22 400 squares of 8 strides", 800, 1344, _PYRAMID, _squares(_PYRAMID, 8)),
    "retina201k": Kind(
        "800 × 1344 px, 201 600 anchors, nine per cell", 800, 1344, _PYRAMID, _retina_anchors(_PYRAMID), 0.0
    ),
    "yolo8400": Kind("640 × 640 px, 8 400 points", 640, 640, _YOLO, _squares(_YOLO, 8)),
    "yolo25200": Kind("640 × 640 px, 25 200 anchors, three per cell", 640, 640, _YOLO, YOLO_ANCHORS),
    "yolo416": Kind("416 × 416 px, 10 647 anchors, three per cell", 416, 416, _YOLO, YOLO_ANCHORS),
    "yolof": Kind(
        "800 × 1344 px, 5 250 anchors, five per cell", 800, 1344, (32,), _squares((32,), 1, 2, 4, 8, 16)
    ),
    "queries300": Kind("640 × 640 px, 300 queries", 640, 640, _YOLO, _squares(_YOLO, 8), queries=300),
}
"""By name."""


@dataclass(frozen=True)
class Inputs:
    """A batch: what an assigner is called with."""

    priors: Priors
    targets: Targets
    predictions: Predictions | None

    def to(self, device: torch.device | str, kind: Kind) -> "Inputs":
        """The same batch on another device."""
        moved = None
        if self.predictions is not None:
            parts = {
                name: part.to(device) for name, part in vars(self.predictions).items() if part is not None
            }
            moved = Predictions(**parts)
        return Inputs(kind.priors(device), self.targets.to(device), moved)

    def without_quality(self) -> "Inputs":
        """The same batch from a network without a quality branch."""
        if self.predictions is None:
            return self
        return replace(self, predictions=replace(self.predictions, quality=None))

    def first_picture(self) -> "Inputs":
        """The first picture of the batch alone."""
        targets = replace(self.targets.select(self.targets.image == 0), batch_size=1)
        predictions = self.predictions
        if predictions is not None:
            parts = {name: part[:1] for name, part in vars(predictions).items() if part is not None}
            predictions = Predictions(**parts)
        return Inputs(self.priors, targets, predictions)


def standard_inputs(
    kind: Kind, batch_size: int, boxes: int, *, predicted: bool = True, seed: int = 0
) -> Inputs:
    """Pictures with this many boxes each; the first ones of a larger batch are those of a smaller one.

    Args:
        boxes: per picture.
        predicted: whether to make predictions, which take most of the memory: 4 · P · (C + 6) bytes per
            picture.
        seed: of everything.
    """
    generators = [torch.Generator().manual_seed(1_000_003 * seed + image) for image in range(batch_size)]
    drawn = [_coco_like(kind, boxes, generator) for generator in generators]
    targets = Targets.from_lists([part for part, _ in drawn], [labels for _, labels in drawn])
    priors = kind.priors()
    if not predicted:
        return Inputs(priors, targets, None)
    owner = _smallest_box(priors, targets)
    pictures = [
        _half_trained(priors, targets, row, generator)
        for row, generator in zip(owner, generators, strict=True)
    ]
    logits, predicted_boxes, quality = (torch.stack(column) for column in zip(*pictures, strict=True))
    deltas = torch.zeros_like(predicted_boxes)
    return Inputs(priors, targets, Predictions(logits, deltas, predicted_boxes, quality))


def _coco_like(
    kind: Kind, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "G 4"], Int64[Tensor, "G"]]:
    """Boxes inside the picture, a third small, a third medium, a third large; few classes are frequent."""
    size = torch.tensor([kind.width, kind.height], dtype=torch.float32)
    scale = math.sqrt(kind.width * kind.height / (640 * 480))
    side = (SIDE_SIGMA * torch.randn(count, generator=generator)).exp() * (MEDIAN_SIDE * scale)
    side = side.clamp(6 * scale, 0.8 * float(size.min()))
    aspect = (ASPECT_SIGMA * torch.randn(count, generator=generator)).exp().sqrt()
    wh = torch.stack((side * aspect, side / aspect), 1).minimum(0.95 * size)
    center = wh / 2 + torch.rand((count, 2), generator=generator) * (size - wh)
    labels = (torch.rand(count, generator=generator) ** 3 * CLASSES).long().clamp(max=CLASSES - 1)
    return torch.cat((center - wh / 2, center + wh / 2), 1), labels


def _smallest_box(priors: Priors, targets: Targets) -> Int64[Tensor, "B P"]:
    """Row of the smallest box around each prior's centre, -1 where there is none."""
    count = len(targets)
    rank = torch.empty_like(targets.labels)
    rank[area(targets.boxes).argsort(descending=True)] = torch.arange(count)
    best = torch.full((targets.batch_size * len(priors),), -1)

    def enter(piece: slice) -> tuple[Tensor, ...]:
        part = targets.select(piece)
        pairs = priors.inside(part)
        place = part.image[pairs.gt] * len(priors) + pairs.prior
        best.scatter_reduce_(0, place, rank[piece][pairs.gt], "amax")
        return (rank[:0],)

    in_pieces(priors.count_inside(targets), enter)
    by_rank = torch.cat((rank.argsort(), torch.tensor([-1])))  # the last entry is for rank -1
    return by_rank[best].reshape(targets.batch_size, len(priors))


def _half_trained(
    priors: Priors, targets: Targets, owner: Int64[Tensor, "P"], generator: torch.Generator
) -> tuple[Float[Tensor, "P C"], Float[Tensor, "P 4"], Float[Tensor, "P"]]:
    """Logits, boxes and quality logits of one picture.

    A prior in a box sees it, with a raised logit of its class and some error; another one sees itself.
    """
    count = len(priors)
    inside: Bool[Tensor, P] = owner >= 0
    rows = inside.nonzero().squeeze(1)
    base = priors.boxes.clone()
    base[rows] = targets.boxes[owner[rows]]
    center, wh = box_centers(base), box_sizes(base)
    error = torch.randn((count, 4), generator=generator).clamp(-2, 2)
    error *= torch.where(inside, INSIDE_JITTER, OUTSIDE_JITTER)[:, None] * wh.repeat(1, 2)
    corners = torch.cat((center - wh / 2, center + wh / 2), 1) + error
    low, high = corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])
    logits = torch.randn((count, CLASSES), generator=generator) - 4.5
    logits[rows, targets.labels[owner[rows]]] += 4.0 + torch.randn(len(rows), generator=generator)
    quality = torch.randn(count, generator=generator) - 3.0 + 4.0 * inside
    return logits, torch.cat((low, high + 1), 1), quality
