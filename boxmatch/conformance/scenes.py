"""Small made-up inputs that the properties are tried on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..priors import AnchorGrid, Priors
from ..structures import Predictions, Targets

SWAPPED = [1, 0, 3, 2]
"""Columns of (x1, y1, x2, y2) once x and y have changed places."""


@dataclass(frozen=True)
class Layout:
    """A kind of priors.

    Args:
        name: for people.
        anchors: (width, height) of each anchor of each level, pixels.
        strides: pixels per cell of each level.
        free: the same boxes without their grid, as proposals and queries are.
    """

    name: str
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...]
    free: bool = False

    def priors(self, height: int, width: int, *, turned: bool = False, device: str = "cpu") -> Priors:
        """Priors for a picture of this many pixels; with `turned`, those of the picture on its side."""
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides]
        anchors = self.anchors
        if turned:
            sizes = [(columns, rows) for rows, columns in sizes]
            anchors = tuple(tuple((h, w) for w, h in level) for level in anchors)
        priors = AnchorGrid(anchors, self.strides)(sizes, device)
        return Priors.from_boxes(priors.boxes) if self.free else priors


def _squares(strides: Sequence[int], times: float) -> tuple[tuple[tuple[float, float], ...], ...]:
    return tuple(((times * stride, times * stride),) for stride in strides)


LAYOUTS = (
    Layout(
        "two levels of three anchors",
        (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119))),
        (8, 16),
    ),
    Layout("two levels of points", _squares((8, 16), 5), (8, 16)),
    Layout("five levels of points", _squares((8, 16, 32, 64, 128), 8), (8, 16, 32, 64, 128)),
    Layout("one level of five anchors", (((8, 8), (16, 16), (32, 32), (64, 64), (128, 128)),), (16,)),
    Layout("boxes on no grid", _squares((8, 16), 3), (8, 16), free=True),
)
"""An assigner is tried on the first of these that it does not refuse."""


@dataclass(frozen=True)
class Picture:
    """The boxes of one picture, and what a half-trained network says about it; letters as in `structures`."""

    boxes: Float[Tensor, "G 4"]
    labels: Int64[Tensor, "G"]
    ignore: Bool[Tensor, "G"]
    logits: Float[Tensor, "P C"]
    deltas: Float[Tensor, "P 4"]
    predicted: Float[Tensor, "P 4"]
    quality: Float[Tensor, "P"]

    def with_boxes(
        self, boxes: Tensor, labels: Tensor | None = None, ignore: Tensor | None = None
    ) -> "Picture":
        """The same predictions beside other boxes; class 0 and no ignore region if nothing else is said."""
        return replace(
            self,
            boxes=boxes,
            labels=torch.zeros(len(boxes), dtype=torch.int64) if labels is None else labels,
            ignore=torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else ignore,
        )

    def reordered(self, order: Int64[Tensor, "G"]) -> "Picture":
        """The same boxes in another order."""
        return self.with_boxes(self.boxes[order], self.labels[order], self.ignore[order])

    def turned(self, place: Int64[Tensor, "P"]) -> "Picture":
        """The picture on its side.

        Args:
            place: from `turned_places`.
        """
        return Picture(
            boxes=self.boxes[:, SWAPPED],
            labels=self.labels,
            ignore=self.ignore,
            logits=self.logits[place],
            deltas=self.deltas[place][:, SWAPPED],
            predicted=self.predicted[place][:, SWAPPED],
            quality=self.quality[place],
        )


@dataclass(frozen=True)
class Scene:
    """A batch: priors, and pictures with their predictions."""

    priors: Priors
    pictures: tuple[Picture, ...]
    classes: int

    def targets(self) -> Targets:
        """The boxes of all pictures."""
        return Targets.from_lists(
            [picture.boxes for picture in self.pictures],
            [picture.labels for picture in self.pictures],
            [picture.ignore for picture in self.pictures],
        )

    def predictions(self, *, quality: bool = True) -> Predictions:
        """What the network says; without a quality branch if that is asked for."""
        count = len(self.priors)
        shapes: dict[str, tuple[int, ...]] = {
            "logits": (count, self.classes),
            "deltas": (count, 4),
            "predicted": (count, 4),
            "quality": (count,),
        }
        stacked = {
            name: torch.stack([torch.zeros(shape), *(getattr(p, name) for p in self.pictures)])[1:]
            for name, shape in shapes.items()
        }
        return Predictions(
            logits=stacked["logits"],
            deltas=stacked["deltas"],
            boxes=stacked["predicted"],
            quality=stacked["quality"] if quality else None,
        )

    def of(self, *pictures: Picture) -> "Scene":
        """The same priors with other pictures."""
        return replace(self, pictures=pictures)


@lru_cache(maxsize=64)
def random_scene(
    layout: Layout,
    counts: tuple[int, ...] = (7, 0, 12, 3),
    *,
    classes: int = 12,
    height: int = 64,
    width: int = 96,
    seed: int = 0,
) -> Scene:
    """Pictures with that many boxes each, some over the border; the same ones at every call.

    Args:
        classes: of the predictions; labels are drawn from the first 12 of them at most.
        height: of every picture in pixels.
    """
    priors = layout.priors(height, width)
    pictures = []
    for place, count in enumerate(counts):
        generator = torch.Generator().manual_seed(1000 * seed + place)
        boxes = _random_boxes(count, height, width, generator)
        labels = torch.randint(min(classes, 12), (count,), generator=generator)
        pictures.append(_half_trained(priors, boxes, labels, classes, generator))
    return Scene(priors, tuple(pictures), classes)


def _random_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "G 4"]:
    """Centres in the picture, sides from 2 pixels to five quarters of its height."""
    center = torch.rand((count, 2), generator=generator) * torch.tensor([width, height])
    side = 2 * (0.625 * height) ** torch.rand((count, 2), generator=generator)
    return torch.cat([center - side / 2, center + side / 2], 1)


def _half_trained(
    priors: Priors, boxes: Tensor, labels: Tensor, classes: int, generator: torch.Generator
) -> Picture:
    """A prior in a box predicts the smallest such box with an error of 15 %, any other prior itself."""
    count = len(priors)
    x, y = priors.centers.unbind(1)
    x1, y1, x2, y2 = boxes[:, None].unbind(2)
    area = ((x2 - x1) * (y2 - y1)).masked_fill(~((x > x1) & (x < x2) & (y > y1) & (y < y2)), torch.inf)
    learned = torch.zeros(count, dtype=torch.int64) if not len(boxes) else area.argmin(0)
    inside = (area < torch.inf).any(0)
    base = priors.boxes.clone()
    if len(boxes):
        base = torch.where(inside[:, None], boxes[learned], base)
    size = (base[:, 2:] - base[:, :2]).repeat(1, 2)
    noise = torch.randn((count, 4), generator=generator).clamp(-2, 2)
    corners = base + 0.15 * size * noise
    low, high = corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])
    logits = torch.randn((count, classes), generator=generator) - 3
    if len(boxes):
        rows = inside.nonzero().squeeze(1)
        logits[rows, labels[learned[rows]]] += 3
    return Picture(
        boxes=boxes,
        labels=labels,
        ignore=torch.zeros(len(boxes), dtype=torch.bool),
        logits=logits,
        deltas=torch.randn((count, 4), generator=generator),
        predicted=torch.cat((low, high + 1), 1),
        quality=torch.randn(count, generator=generator) - 2 + 3 * inside,
    )


def turned_places(priors: Priors) -> Int64[Tensor, "P"]:
    """For each prior of the picture on its side, the prior that it was before."""
    if not priors.levels:
        return torch.arange(len(priors))
    places, start = [], 0
    for level in priors.levels:
        grid = torch.arange(start, start + len(level)).reshape(level.height, level.width, level.anchors)
        places.append(grid.permute(1, 0, 2).flatten())
        start += len(level)
    return torch.cat(places)


def copy_of(value: Targets | Predictions) -> dict[str, Tensor]:
    """The tensors of a dataclass, copied."""
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: entry.clone() for name, entry in named.items() if isinstance(entry, Tensor)}
