"""Pictures at a chosen length of their shorter side: the sizes that published COCO detectors train on."""

from dataclasses import dataclass

import numpy as np

from boxmatch.data.geometry import Size


@dataclass(frozen=True)
class ShortSide:
    """Each picture keeps its proportions, and a batch is padded on the right and at the bottom.

    Args:
        short_side: shorter side in pixels; in training too unless there is a range for it.
        long_side: no longer side exceeds this, but for rounding; where it would, the shorter side gives way.
        train_short_side: smallest and largest shorter side in training; every length in between is as likely,
            and each picture draws its own in each epoch.
        group: make training batches of pictures that are wider than tall, or of the others, so that little
            is padded.

    Raises:
        ValueError: a length below 1, a range whose ends are swapped, a shorter side above the longer.

    Source: maskrcnn-benchmark, Resize and GroupedBatchSampler, as specified for ATSS and PAA.
    """

    short_side: int = 800
    long_side: int = 1333
    train_short_side: tuple[int, int] | None = None
    group: bool = True

    def __post_init__(self) -> None:
        low, high = self.train_short_side or (self.short_side, self.short_side)
        if not 1 <= low <= high:
            raise ValueError(f"resize.train_short_side: expected 1 <= low <= high, got ({low}, {high})")
        if not 1 <= max(self.short_side, high) <= self.long_side:
            raise ValueError(
                "resize.long_side: expected it at least as long as the shorter sides, which are above 0, got "
                f"{self.long_side} beside {self.short_side} and {high}"
            )

    def size(self, picture: Size, short_side: int) -> Size:
        """Width and height at this shorter side, or at the shorter one that the longer side leaves."""
        shorter, longer = sorted(picture)
        if longer / shorter * short_side > self.long_side:
            short_side = round(self.long_side * shorter / longer)
        short_side = max(1, short_side)
        width, height = picture
        if width < height:
            return short_side, short_side * height // width
        return short_side * width // height, short_side

    def drawn(self, random: np.random.Generator) -> int:
        """A shorter side for one training picture."""
        if self.train_short_side is None:
            return self.short_side
        low, high = self.train_short_side
        return int(random.integers(low, high + 1))
