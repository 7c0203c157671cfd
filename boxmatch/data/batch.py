"""What travels from the data to the detector: one augmented sample, and a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from boxmatch.data.geometry import Fill
from boxmatch.structures import Detections, Targets


@dataclass(frozen=True)
class Sample:
    """One picture as the network will see it.

    Args:
        image: RGB.
        boxes: xyxy in pixels of `image`, inside it.
        labels: class index of each box.
        ignore: crowd or difficult regions.
        index: position of the picture in its data set (of the first one, for a mosaic).
        image_id: the annotation file's own number of that picture.
        original_size: its width and height in the file.
        scale: pixels of `image` per pixel of the file, in x and y; NaN for an augmented picture.
        offset: where the file's corner (0, 0) lies in `image`; NaN likewise.
    """

    image: UInt8[Tensor, "3 H W"]
    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, "n"]
    ignore: Bool[np.ndarray, "n"]
    index: int
    image_id: int
    original_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with their boxes, and the way back to the files.

    Args:
        images: RGB, 0 to 255; the detector normalises.
        targets: boxes in pixels of `images`.
        picture_sizes: (height, width) of each picture without padding on the right and at the bottom, as
            `Detector.predict` takes them.
        index: position of each picture in its data set.
        image_id: number of each picture in the annotation file.
        original_size: width and height in the file.
        scale: pixels of `images` per pixel of the file in x and y; NaN for augmented pictures.
        offset: where the file's corner (0, 0) lies in `images`; NaN for augmented pictures.
    """

    images: UInt8[Tensor, "B 3 H W"]
    targets: Targets
    picture_sizes: Int64[Tensor, "B 2"]
    index: Int64[Tensor, "B"]
    image_id: Int64[Tensor, "B"]
    original_size: Int64[Tensor, "B 2"]
    scale: Float[Tensor, "B 2"]
    offset: Float[Tensor, "B 2"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self.images.shape[3], self.images.shape[2]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Pictures and boxes on another device; index, sizes and the way back stay where they are read."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=self.targets.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by the data loader)."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())

    def restore(self, detections: Sequence[Detections]) -> list[Detections]:
        """Detections of each picture of the batch, mapped to its file's own pixels and clipped to the file.

        Raises:
            ValueError: a picture was augmented, so that no such mapping exists.
        """
        return [
            Detections(self.restore_boxes(found.boxes, image), found.scores, found.labels)
            for image, found in enumerate(detections)
        ]

    def restore_boxes(self, boxes: Float[Tensor, "K 4"], image: int) -> Float[Tensor, "K 4"]:
        """Boxes of one picture of the batch, mapped to its file's own pixels and clipped to the file.

        Raises:
            ValueError: the picture was augmented, so that no such mapping exists.
        """
        scale, offset = self.scale[image], self.offset[image]
        if not bool(torch.isfinite(scale).all()):
            raise ValueError(
                f"picture {image} of the batch (index {int(self.index[image])}) was augmented and has no way "
                "back to the file; load it without augmentation"
            )
        return restore_boxes(boxes, scale, offset, self.original_size[image])


def restore_boxes(
    boxes: Float[Tensor, "K 4"],
    scale: Float[Tensor, "2"],
    offset: Float[Tensor, "2"],
    original_size: Int64[Tensor, "2"],
) -> Float[Tensor, "K 4"]:
    """xyxy boxes of a letterboxed or resized picture in the file's own pixels, clipped to the file."""
    scale, offset = scale.to(boxes), offset.to(boxes)
    restored = (boxes - offset.repeat(2)) / scale.repeat(2)
    return torch.minimum(restored.clamp(min=0), original_size.to(boxes).repeat(2))


def collate(samples: Sequence[Sample], *, pad_to: int | None = None, fill: Fill = 0) -> Batch:
    """Stack samples; boxes are laid end to end with the number of their picture.

    Args:
        samples: of one size, unless they are padded.
        pad_to: pad on the right and at the bottom to the largest width and height, rounded up to a multiple
            of this; None leaves pictures as they are.
        fill: value of the padding.

    Raises:
        ValueError: the pictures differ in size and are not to be padded, or there are none.
    """
    sizes = {tuple(sample.image.shape) for sample in samples}
    if not sizes or (pad_to is None and len(sizes) != 1):
        raise ValueError(f"expected pictures of one size in a batch, got {sorted(sizes)}")
    images = [sample.image for sample in samples]
    counts = [len(sample.boxes) for sample in samples]
    return Batch(
        images=torch.stack(images) if pad_to is None else pad_pictures(images, pad_to, fill),
        targets=Targets(
            boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
            labels=torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
            image=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
            ignore=torch.from_numpy(np.concatenate([sample.ignore for sample in samples])),
            batch_size=len(samples),
        ),
        picture_sizes=torch.tensor([image.shape[1:] for image in images]),
        index=torch.tensor([sample.index for sample in samples]),
        image_id=torch.tensor([sample.image_id for sample in samples]),
        original_size=torch.tensor([sample.original_size for sample in samples]),
        scale=torch.tensor([sample.scale for sample in samples], dtype=torch.float32),
        offset=torch.tensor([sample.offset for sample in samples], dtype=torch.float32),
    )


def pad_pictures(
    images: Sequence[UInt8[Tensor, "3 _ _"]], multiple: int, fill: Fill
) -> UInt8[Tensor, "B 3 H W"]:
    """Pictures of several sizes in the upper left corners of one size that holds each.

    Args:
        images: RGB; one or more.
        multiple: width and height become multiples of it.
        fill: value of the padding.
    """
    height, width = (-(-max(i.shape[axis] for i in images) // multiple) * multiple for axis in (1, 2))
    color = torch.tensor(fill, dtype=torch.uint8).reshape(-1, 1, 1)
    batch = color.expand(len(images), 3, height, width).clone()
    for canvas, image in zip(batch, images, strict=True):  # pictures differ in size
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return batch
