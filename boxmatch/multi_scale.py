"""Multi-scale testing: pictures at several sizes and mirrored, detections merged by voting."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from .box_voting import merge_by_voting
from .boxes import area
from .data.batch import pad_pictures
from .data.geometry import SIZE_STEP, Fill, Size, resample
from .data.resize import ShortSide
from .models.detector import Detector
from .structures import Detections

_SOFT_MIN_SCORE = 0.05  # PAA: members of a group whose lowered score is less are not emitted


@dataclass(frozen=True)
class Scale:
    """One size at which pictures are looked at, and the boxes that count there.

    Args:
        short_side: shorter side in pixels.
        long_side: no longer side exceeds this; the shorter side gives way.
        least_side: only boxes of an area above this, squared, count, in pixels of the resized picture; 0
            takes all.
        greatest_side: only boxes of an area below this, squared, count; infinite takes all.

    Raises:
        ValueError: a length is below 1 or the range is empty.
    """

    short_side: int
    long_side: int
    least_side: float = 0.0
    greatest_side: float = math.inf

    def __post_init__(self) -> None:
        if not 1 <= self.short_side <= self.long_side:
            raise ValueError(
                f"Scale: expected 1 <= short_side <= long_side, got {self.short_side} and {self.long_side}"
            )
        if not 0 <= self.least_side < self.greatest_side:
            raise ValueError(
                f"Scale: expected 0 <= least_side < greatest_side, got {self.least_side} and "
                f"{self.greatest_side}"
            )

    def size(self, picture: Size) -> Size:
        """Width and height of a picture of this width and height at this scale."""
        return ShortSide(self.short_side, self.long_side).size(picture, self.short_side)


def published_scales() -> tuple[Scale, ...]:
    """The thirteen sizes of ATSS and PAA: 800 with all boxes, then small ones for large boxes and vice versa.

    Source: test settings of sfzhang15/ATSS and kkhoot/PAA.
    """
    ranges: list[tuple[tuple[int, ...], float, float]] = [
        ((400, 500), 96, 1e4),
        ((600, 640, 700), 64, 1e4),
        ((900, 1000), 0, 1e4),
        ((1100, 1200), 0, 256),
        ((1300, 1400), 0, 192),
        ((1800,), 0, 96),
    ]
    return (
        Scale(800, 1333),
        *(
            Scale(side, 1333 if side < 800 else 3000, least, greatest)
            for sides, least, greatest in ranges
            for side in sides
        ),
    )


class MultiScale:
    """A detector that looks at each picture at several sizes, and mirrored, and merges what it finds.

    Every look is post-processed in full by the detector's own rule (NMS, truncation, score voting). Boxes
    outside a size's range are dropped, the others go back to the picture's own pixels and are merged class by
    class, see `merge_by_voting`. Pictures that have the same size after resizing go through the network
    together.

    Args:
        detector: with its weights.
        scales: sizes; a number is a shorter side without a limit to the longer one and with all boxes.
        flip: look at the mirrored picture too.
        soft: emit the members of a group too, with lowered scores.
        min_iou: least overlap within a group.
        max_detections: per picture, after merging.
        batch_size: pictures that go through the network together, at most.
        fill: value of the padding, as in training.

    Raises:
        ValueError: there is no scale, or an option is out of range.

    Source: multi-scale testing of ATSS and PAA (maskrcnn-benchmark), from its specification.
    """

    def __init__(
        self,
        detector: Detector,
        scales: Sequence[Scale | int] | None = None,
        *,
        flip: bool = True,
        soft: bool = False,
        min_iou: float = 0.66,
        max_detections: int = 1000,
        batch_size: int = 8,
        fill: Fill = 0,
    ) -> None:
        self.detector = detector
        self.scales = published_scales() if scales is None else tuple(_scale(scale) for scale in scales)
        if not self.scales:
            raise ValueError("MultiScale: expected one or more scales, got none")
        if not 0 < min_iou <= 1:
            raise ValueError(f"MultiScale: expected min_iou in (0, 1], got {min_iou}")
        for name, count in (("max_detections", max_detections), ("batch_size", batch_size)):
            if count < 1:
                raise ValueError(f"MultiScale: expected {name} of 1 or more, got {count}")
        self.flip, self.soft, self.min_iou = flip, soft, min_iou
        self.max_detections, self.batch_size, self.fill = max_detections, batch_size, fill

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.detector.class_names

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Shaped[Tensor, "3 _ _"]]) -> list[Detections]:
        """Detections of each picture in its own pixels, best first, on the CPU.

        Args:
            pictures: RGB uint8, of any sizes.

        Raises:
            ValueError: a picture is no RGB uint8 picture.
        """
        for number, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[0] != 3 or picture.dtype != torch.uint8:
                raise ValueError(
                    f"expected RGB pictures (3, H, W) of uint8, got {tuple(picture.shape)} of "
                    f"{picture.dtype} for picture {number}"
                )
        found: list[list[Detections]] = [[] for _ in pictures]
        for scale in self.scales:
            for size, numbers in self._batches(pictures, scale):
                looks = self._look([pictures[number] for number in numbers], size, scale)
                for number, seen in zip(numbers, looks, strict=True):
                    found[number] += seen
        return [self._merged(looks) for looks in found]

    def _batches(self, pictures: Sequence[Tensor], scale: Scale) -> Iterator[tuple[Size, list[int]]]:
        """Positions of pictures that have one size at this scale, and that size."""
        alike: dict[Size, list[int]] = defaultdict(list)
        for number, picture in enumerate(pictures):
            alike[scale.size((picture.shape[2], picture.shape[1]))].append(number)
        for size, numbers in alike.items():
            for start in range(0, len(numbers), self.batch_size):
                yield size, numbers[start : start + self.batch_size]

    def _look(self, pictures: list[Tensor], size: Size, scale: Scale) -> list[list[Detections]]:
        """What is found in each of these pictures at one scale, plain and mirrored, in its own pixels."""
        width, height = size
        resized = torch.stack([_resized(picture, size) for picture in pictures])
        sizes = torch.tensor([(height, width)] * len(pictures))
        looks = []
        for mirrored in (False, True) if self.flip else (False,):
            images = pad_pictures((resized.flip(3) if mirrored else resized).unbind(), SIZE_STEP, self.fill)
            found = self.detector.predict(images.to(self.detector.mean.device), sizes=sizes)
            looks.append([_in_range(_unmirrored(one, width) if mirrored else one, scale) for one in found])
        return [
            [_scaled(one, (picture.shape[2] / width, picture.shape[1] / height)) for one in of_picture]
            for picture, of_picture in zip(pictures, zip(*looks, strict=True), strict=True)
        ]

    def _merged(self, looks: list[Detections]) -> Detections:
        columns = ([getattr(look, name).cpu() for look in looks] for name in ("boxes", "scores", "labels"))
        together = Detections(*(torch.cat(column) for column in columns))
        merged = merge_by_voting(
            together, min_iou=self.min_iou, soft_min_score=_SOFT_MIN_SCORE if self.soft else None
        )
        kept = slice(self.max_detections)
        return Detections(merged.boxes[kept], merged.scores[kept], merged.labels[kept])


def _scale(scale: Scale | int) -> Scale:
    # No picture reaches this side: the reader refuses more than 100 million pixels.
    return scale if isinstance(scale, Scale) else Scale(scale, 10**9)


def _resized(picture: Tensor, size: Size) -> Tensor:
    if (picture.shape[2], picture.shape[1]) == size:
        return picture
    return resample(picture.permute(1, 2, 0), size).permute(2, 0, 1)


def _unmirrored(found: Detections, width: int) -> Detections:
    left, top, right, bottom = found.boxes.unbind(1)
    return replace(found, boxes=torch.stack((width - right, top, width - left, bottom), dim=1))


def _scaled(found: Detections, factors: tuple[float, float]) -> Detections:
    return replace(found, boxes=found.boxes * found.boxes.new_tensor(factors * 2))


def _in_range(found: Detections, scale: Scale) -> Detections:
    """The detections whose area counts at this scale."""
    size = area(found.boxes)
    kept = size < scale.greatest_side**2
    if scale.least_side > 0:
        kept &= size > scale.least_side**2
    rows = kept.nonzero().squeeze(1)
    return Detections(found.boxes[rows], found.scores[rows], found.labels[rows])
