"""The ground truths of a batch. Letters: B images, G ground truths of the whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Ground truths of a whole batch, flat and without padding; an image without boxes owns no row.

    Args:
        boxes: xyxy in pixels of the batch's images.
        labels: class index of each box, from 0.
        image: index of the image that owns each box, ascending.
        ignore: regions (crowd, difficult) that are neither object nor background.
        batch_size: number of images, those without boxes included.

    Raises:
        ValueError: an image index is out of range or not ascending.
    """

    boxes: Float[Tensor, "G 4"]
    labels: Int64[Tensor, "G"]
    image: Int64[Tensor, "G"]
    ignore: Bool[Tensor, "G"]
    batch_size: int

    @classmethod
    def from_lists(
        cls,
        boxes: Sequence[Any],
        labels: Sequence[Any],
        ignore: Sequence[Any] | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> "Targets":
        """Build from one (n, 4) box list or tensor and one label list or tensor per image.

        Raises:
            ValueError: the lists disagree in length, boxes are not (n, 4) or labels no whole numbers (n,), a
                box is not finite or has no extent, or a label is negative.
        """
        if len(boxes) != len(labels):
            raise ValueError(
                f"expected one label list per image, got {len(boxes)} box lists and {len(labels)} label lists"
            )
        box_list = [_as_boxes(values, number, device) for number, values in enumerate(boxes)]
        label_list = [
            _as_labels(values, len(box_list[number]), number, device) for number, values in enumerate(labels)
        ]
        if ignore is None:
            ignore_list = [torch.zeros(len(b), dtype=torch.bool, device=device) for b in box_list]
        else:
            ignore_list = [torch.as_tensor(v, dtype=torch.bool, device=device).reshape(-1) for v in ignore]
        counts = [len(b) for b in box_list]
        for number, (count, lab, ign) in enumerate(zip(counts, label_list, ignore_list, strict=True)):
            if len(lab) != count or len(ign) != count:
                raise ValueError(
                    f"image {number}: expected {count} labels and ignore flags, got {len(lab)} and {len(ign)}"
                )
        empty = torch.zeros((0, 4), device=device)
        targets = cls(
            boxes=torch.cat([empty, *box_list]),
            labels=torch.cat([torch.zeros(0, dtype=torch.int64, device=device), *label_list]),
            image=torch.repeat_interleave(
                torch.arange(len(counts), device=device),
                torch.tensor(counts, dtype=torch.int64, device=device),
            ),
            ignore=torch.cat([torch.zeros(0, dtype=torch.bool, device=device), *ignore_list]),
            batch_size=len(counts),
        )
        targets.check()
        return targets

    def check(self, num_classes: int | None = None) -> None:
        """Raise ValueError at the first row that no assigner may see; for the boundary, not for hot loops."""
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"expected boxes (G, 4), xyxy in pixels, got shape {tuple(self.boxes.shape)}")
        for name, values in (("labels", self.labels), ("image", self.image), ("ignore", self.ignore)):
            if values.shape != (count,):
                hint = f"; {_LABEL_HINT}" if name == "labels" else ""
                raise ValueError(f"expected {name} of shape ({count},), got {tuple(values.shape)}{hint}")
        finite = torch.isfinite(self.boxes).all(1)
        extent = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        label = self.labels >= 0 if num_classes is None else (self.labels >= 0) & (self.labels < num_classes)
        image = (self.image >= 0) & (self.image < self.batch_size)
        image[1:] &= self.image[1:] >= self.image[:-1]
        bound = "0 or more" if num_classes is None else f"0 .. {num_classes - 1}"
        for ok, expected in (
            (finite, "finite coordinates"),
            (extent, "x1 < x2 and y1 < y2"),
            (label, f"a label in {bound}"),
            (image, f"ascending image indices in 0 .. {self.batch_size - 1}"),
        ):
            if not bool(ok.all()):
                row = int((~ok).nonzero()[0])
                raise ValueError(
                    f"box {row} of the batch (image {int(self.image[row])}): expected {expected}, got "
                    f"{self.boxes[row].tolist()} with label {int(self.labels[row])}; drop or repair it"
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def per_image(self) -> Int64[Tensor, "B"]:
        """Number of boxes of each image, ignore regions included."""
        return torch.bincount(self.image, minlength=self.batch_size)

    def select(self, keep: Tensor | slice) -> "Targets":
        """The rows where `keep` (bool mask, ascending index or slice) holds; the batch size stays."""
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            image=self.image[keep],
            ignore=self.ignore[keep],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Targets":
        """The same rows on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("boxes", "labels", "image", "ignore")
        }
        return replace(self, **moved)

    def pin_memory(self) -> "Targets":
        """The same rows in page-locked memory (called by the data loader)."""
        return replace(
            self, **{n: getattr(self, n).pin_memory() for n in ("boxes", "labels", "image", "ignore")}
        )


_LABEL_HINT = (
    "give the class number of each box, not a map of classes or rows of zeros and ones; "
    "where there is one class, as for a tracker, zeros(G)"
)


def _as_boxes(values: Any, number: int, device: torch.device | str | None) -> Float[Tensor, "n 4"]:
    """The boxes of one image; an empty list of any shape has none."""
    boxes = torch.as_tensor(values, dtype=torch.float32, device=device)
    if not boxes.numel():
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"image {number}: expected boxes of shape (n, 4), xyxy in pixels, got {tuple(boxes.shape)}; one "
            "row per box"
        )
    return boxes


def _as_labels(values: Any, count: int, number: int, device: torch.device | str | None) -> Int64[Tensor, "n"]:
    """The labels of the `count` boxes of one image; their number is compared by the caller."""
    labels = torch.as_tensor(values, device=device)
    if not labels.numel():
        return labels.reshape(0).long()
    if labels.ndim != 1:
        raise ValueError(
            f"image {number}: expected labels of shape ({count},), got {tuple(labels.shape)}; {_LABEL_HINT}"
        )
    # Whole numbers of another type, such as torch.zeros(G), say clearly enough what they mean.
    whole = not labels.is_floating_point() or bool((labels.remainder(1) == 0).all())
    if not whole or labels.dtype == torch.bool:
        raise ValueError(
            f"image {number}: expected labels as whole numbers (int64), got {labels.dtype}; {_LABEL_HINT}"
        )
    return labels.long()
