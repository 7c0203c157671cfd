"""Annotated pictures as samples: a function of seed, epoch and index, whoever asks and in which order."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from boxmatch.data.annotations import Annotations
from boxmatch.data.batch import Batch, Sample, collate
from boxmatch.data.cache import ImageCache
from boxmatch.data.geometry import (
    SIZE_STEP,
    Fill,
    Layout,
    Size,
    draw,
    letterbox,
    turned_boxes,
    warp_boxes,
    warp_pixels,
    whole,
)
from boxmatch.data.mosaic import random_layout
from boxmatch.data.pictures import Pictures
from boxmatch.data.resize import ShortSide
from boxmatch.data.transforms import Augment, jitter_colors, keep_visible

Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""xyxy boxes, labels and ignore flags."""


@dataclass(frozen=True)
class BatchKey:
    """What a sampler asks of a data set: everything that a batch depends on, so that workers need no state.

    Args:
        epoch: enters the random streams of the samples.
        indices: pictures of the batch.
        size: width and height of the batch; None for the data set's own.
    """

    epoch: int
    indices: tuple[int, ...]
    size: Size | None = field(default=None)


class DetectionDataset(Dataset[Batch]):
    """Pictures with boxes, augmented or letterboxed to one size, or each at a size of its own.

    Args:
        annotations: boxes in pixels of the upright files.
        image_size: width and height of the network's input.
        resize: what size each picture gets, in place of `image_size`; only colours and flips of `augment`
            then apply, and a batch is padded on the right and at the bottom to multiples of 32.
        augment: what happens to the pictures; None shows each one whole, in the middle of the input.
        seed: start of all random streams.
        cache: keeps decoded pictures in memory.
        min_area: square pixels of the input that must be left of a box after cropping.
        fill: value of the pixels beside and between pictures.
        mosaic_epochs: mosaic is off from this epoch on; None for never.
        largest_side: the longest side that will be asked for, where sizes change from batch to batch.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        image_size: Size,
        resize: ShortSide | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
        min_area: float = 0.0,
        fill: Fill = 0,
        mosaic_epochs: int | None = None,
        largest_side: int | None = None,
    ) -> None:
        self.annotations = annotations
        self.image_size = image_size
        self.resize = resize
        self.augment = augment
        self.seed = seed
        self.min_area = min_area
        self.fill = fill
        self.mosaic_epochs = mosaic_epochs
        largest = resize.long_side if resize else max(*image_size, largest_side or 0)
        zoom = augment.largest_scale if augment else 1.0
        self.pictures = Pictures(annotations, side=round(largest * zoom), cache=cache)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: BatchKey) -> Batch:
        """The batch that a sampler asks for."""
        samples = [self.sample(key.epoch, index, key.size) for index in key.indices]
        return collate(samples, pad_to=SIZE_STEP if self.resize else None, fill=self.fill)

    def sample(self, epoch: int, index: int, size: Size | None = None) -> Sample:
        """The sample of one picture in one epoch: the same whenever it is asked for.

        Raises:
            IndexError: no such picture.
            DataError: a picture file cannot be read; the text names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        size = size or self.image_size
        if self.augment is None:
            return self._unchanged(index, size)
        random = np.random.default_rng([self.seed, epoch, index])
        if self.resize is None:
            mosaic = self.mosaic_epochs is None or epoch < self.mosaic_epochs
            layout = random_layout(
                index, len(self), self.pictures.size, size, self.augment, random, mosaic=mosaic
            )
        else:
            size = self.resize.size(self.pictures.size(index), self.resize.drawn(random))
            layout = whole(index, size)
        image, (boxes, labels, ignore) = self._drawn(layout)
        boxes, keep = keep_visible(boxes, size, self.min_area, self.augment.min_visibility)
        boxes, labels, ignore = boxes[keep], labels[keep], ignore[keep]
        image = self._colored(image, self.augment, random)
        if random.random() < self.augment.h_flip:
            image, boxes = image.flip(2), mirrored(boxes, size[0], 0)
        if random.random() < self.augment.v_flip:
            image, boxes = image.flip(1), mirrored(boxes, size[1], 1)
        unknown = (float("nan"), float("nan"))
        return self._sample(index, image, (boxes, labels, ignore), unknown, unknown)

    def _unchanged(self, index: int, size: Size) -> Sample:
        """The whole picture with the way back to its file."""
        original = self.pictures.size(index)
        if self.resize is None:
            layout = letterbox(index, original, size)
        else:
            size = self.resize.size(original, self.resize.short_side)
            layout = whole(index, size)
        image, (boxes, labels, ignore) = self._drawn(layout)
        boxes, keep = keep_visible(boxes, size, 0.0, 0.0)
        left, top, right, bottom = layout.placements[0].edges
        scale = ((right - left) / original[0], (bottom - top) / original[1])
        return self._sample(
            index, image, (boxes[keep], labels[keep], ignore[keep]), scale, (float(left), float(top))
        )

    def _colored(self, image: torch.Tensor, options: Augment, random: np.random.Generator) -> torch.Tensor:
        return jitter_colors(image, options, random) if random.random() < options.color_p else image

    def _drawn(self, layout: Layout) -> tuple[torch.Tensor, Boxes]:
        """Pixels and boxes of a layout, boxes not yet clipped."""
        width, height = layout.window
        canvas = torch.tensor(self.fill, dtype=torch.uint8).expand(height, width, 3).clone()
        parts = []
        for (
            placement
        ) in layout.placements:  # at most four; pictures differ in size, so there is no common tensor
            if placement.visible(layout.window) is None:
                continue
            pixels = self.pictures.pixels(placement.picture)
            way = draw(canvas, pixels, placement)
            boxes, labels, ignore = self._objects(placement.picture)
            size = (pixels.shape[1], pixels.shape[0])
            original = self.pictures.size(placement.picture)
            boxes = boxes * np.array([size[0] / original[0], size[1] / original[1]] * 2, np.float32)
            parts.append((way(turned_boxes(boxes, size, placement.quarter_turns)), labels, ignore))
        none = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
        boxes, labels, ignore = (np.concatenate(column) for column in zip(none, *parts, strict=True))
        if layout.warp is not None:
            canvas = warp_pixels(canvas, layout.warp, layout.output, self.fill)
            boxes = warp_boxes(boxes, layout.warp)
        return canvas.permute(2, 0, 1).contiguous(), (boxes, labels, ignore)

    def _objects(self, index: int) -> Boxes:
        rows = self.annotations.rows(index)
        boxes = self.annotations.boxes[rows]
        return boxes, self.annotations.labels[rows].astype(np.int64), self.annotations.ignore[rows]

    def _sample(
        self,
        index: int,
        image: torch.Tensor,
        objects: Boxes,
        scale: tuple[float, float],
        offset: tuple[float, float],
    ) -> Sample:
        boxes, labels, ignore = objects
        image_id = int(self.annotations.image_ids[index])
        return Sample(image, boxes, labels, ignore, index, image_id, self.pictures.size(index), scale, offset)


def mirrored(boxes: np.ndarray, length: int, axis: int) -> np.ndarray:
    """xyxy boxes after mirroring a picture of this length along x (axis 0) or y (axis 1)."""
    result = boxes.copy()
    result[:, axis], result[:, axis + 2] = length - boxes[:, axis + 2], length - boxes[:, axis]
    return result
