"""The few types that all rooms share. Letters: B images, G ground truths of the batch, P priors, C classes, N pairs."""

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
            ValueError: the lists disagree in length, a box is not finite or has no extent, or a label is negative.
        """
        if len(boxes) != len(labels):
            raise ValueError(f"expected one label list per image, got {len(boxes)} box lists and {len(labels)} label lists")
        box_list = [torch.as_tensor(b, dtype=torch.float32, device=device).reshape(-1, 4) for b in boxes]
        label_list = [torch.as_tensor(v, dtype=torch.int64, device=device).reshape(-1) for v in labels]
        if ignore is None:
            ignore_list = [torch.zeros(len(b), dtype=torch.bool, device=device) for b in box_list]
        else:
            ignore_list = [torch.as_tensor(v, dtype=torch.bool, device=device).reshape(-1) for v in ignore]
        counts = [len(b) for b in box_list]
        for number, (count, lab, ign) in enumerate(zip(counts, label_list, ignore_list, strict=True)):
            if len(lab) != count or len(ign) != count:
                raise ValueError(f"image {number}: expected {count} labels and ignore flags, got {len(lab)} and {len(ign)}")
        empty = torch.zeros((0, 4), device=device)
        targets = cls(
            boxes=torch.cat([empty, *box_list]),
            labels=torch.cat([torch.zeros(0, dtype=torch.int64, device=device), *label_list]),
            image=torch.repeat_interleave(
                torch.arange(len(counts), device=device), torch.tensor(counts, dtype=torch.int64, device=device)
            ),
            ignore=torch.cat([torch.zeros(0, dtype=torch.bool, device=device), *ignore_list]),
            batch_size=len(counts),
        )
        targets.check()
        return targets

    def check(self, num_classes: int | None = None) -> None:
        """Raise ValueError at the first box or label no assigner may see: the guard at the boundary, not for hot loops."""
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
                    f"box {row} of the batch (image {int(self.image[row])}): expected {expected}, got box "
                    f"{self.boxes[row].tolist()} with label {int(self.labels[row])}; drop or repair it in the data"
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def per_image(self) -> Int64[Tensor, "B"]:
        """Number of boxes of each image, ignore regions included."""
        return torch.bincount(self.image, minlength=self.batch_size)

    def select(self, keep: Tensor) -> "Targets":
        """The rows where `keep` (bool mask or ascending index) holds; the batch size stays."""
        return replace(
            self, boxes=self.boxes[keep], labels=self.labels[keep], image=self.image[keep], ignore=self.ignore[keep]
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
        return replace(self, **{n: getattr(self, n).pin_memory() for n in ("boxes", "labels", "image", "ignore")})


@dataclass(frozen=True)
class Level:
    """One feature map: rows, columns, pixels per cell, priors per cell."""

    height: int
    width: int
    stride: int
    anchors: int

    def __len__(self) -> int:
        return self.height * self.width * self.anchors


@dataclass(frozen=True)
class Predictions:
    """What the network says about each prior, float32.

    Args:
        logits: class logits.
        deltas: box offsets as the head gave them.
        boxes: decoded xyxy in pixels, or None where nobody asked for them (assigners that look at priors only).
        quality: objectness, centerness or IoU logit per prior, or None for heads without such a branch.
    """

    logits: Float[Tensor, "B P C"]
    deltas: Float[Tensor, "B P 4"]
    boxes: Float[Tensor, "B P 4"] | None = None
    quality: Float[Tensor, "B P"] | None = None

    def detach(self) -> "Predictions":
        """The same values without the graph."""
        return Predictions(
            self.logits.detach(),
            self.deltas.detach(),
            None if self.boxes is None else self.boxes.detach(),
            None if self.quality is None else self.quality.detach(),
        )


@dataclass(frozen=True)
class Pairs:
    """A ragged list of (ground truth, prior) index pairs; the image of a pair is `targets.image[gt]`."""

    gt: Int64[Tensor, "N"]
    prior: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.gt)

    def select(self, keep: Tensor) -> "Pairs":
        """The pairs where `keep` (bool mask or index) holds."""
        return Pairs(self.gt[keep], self.prior[keep])


@dataclass(frozen=True)
class Detections:
    """Detections of one image.

    Args:
        boxes: xyxy in pixels.
        scores: in [0, 1], descending.
        labels: class indices.
    """

    boxes: Float[Tensor, "K 4"]
    scores: Float[Tensor, "K"]
    labels: Int64[Tensor, "K"]

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> "Detections":
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))


@dataclass(frozen=True)
class AssignmentStats:
    """What an assignment gave to each box, in numbers; `print(stats)` gives a short summary.

    Args:
        positives: positive priors of each box.
        level_positives: the same, split by level.
        starved: rows of boxes (ignore regions excepted) that no prior learns.
        contested: number of priors that several boxes of their image asked for.
        ignored: number of priors that take no part.
        background: number of priors that are neither positive nor ignored.
    """

    positives: Int64[Tensor, "G"]
    level_positives: Int64[Tensor, "G L"]
    starved: Int64[Tensor, "S"]
    contested: int
    ignored: int
    background: int

    @property
    def total(self) -> int:
        """Number of positive pairs."""
        return int(self.positives.sum())

    def __str__(self) -> str:
        levels = ", ".join(str(n) for n in self.level_positives.sum(0).tolist())
        return (
            f"{len(self.positives)} boxes, {self.total} positives (by level: {levels}), "
            f"{len(self.starved)} boxes without a positive, {self.contested} contested priors, "
            f"{self.ignored} ignored, {self.background} background"
        )


@dataclass(frozen=True)
class Assignment:
    """Who teaches whom: sparse pairs with the strength of each.

    Args:
        pairs: positive (ground truth, prior) pairs, ordered by ground truth; no pair occurs twice.
        weight: strength of the positive term of each pair.
        score: class target in [0, 1] of each pair; 1 for hard assigners.
        neg_weight: strength of the negative term for (prior, class of the ground truth); 0 for hard assigners.
        ignored: priors that take no part in any term.
        targets: the ground truths the pairs index.
        levels: the levels the priors lie on, in order; empty for priors without a grid.
        candidates: the pairs before each contested prior chose one owner, where the assigner knows them.
    """

    pairs: Pairs
    weight: Float[Tensor, "N"]
    score: Float[Tensor, "N"]
    neg_weight: Float[Tensor, "N"]
    ignored: Bool[Tensor, "B P"]
    targets: Targets
    levels: tuple[Level, ...] = ()
    candidates: Pairs | None = None

    @classmethod
    def hard(
        cls,
        pairs: Pairs,
        targets: Targets,
        prior_count: int,
        *,
        levels: tuple[Level, ...] = (),
        candidates: Pairs | None = None,
    ) -> "Assignment":
        """The assignment of a hard method: every pair with strength and class target 1, nothing ignored."""
        device = targets.boxes.device
        ones = torch.ones(len(pairs), device=device)
        return cls(
            pairs=pairs,
            weight=ones,
            score=ones,
            neg_weight=torch.zeros(len(pairs), device=device),
            ignored=torch.zeros((targets.batch_size, prior_count), dtype=torch.bool, device=device),
            targets=targets,
            levels=levels,
            candidates=candidates,
        )

    @property
    def image(self) -> Int64[Tensor, "N"]:
        """Image of each pair."""
        return self.targets.image[self.pairs.gt]

    @property
    def level(self) -> Int64[Tensor, "N"]:
        """Level of each pair's prior; 0 for priors without a grid."""
        if not self.levels:
            return torch.zeros_like(self.pairs.prior)
        lengths = torch.tensor([len(level) for level in self.levels], device=self.pairs.prior.device)
        return torch.bucketize(self.pairs.prior, lengths.cumsum(0), right=True)

    def gt_index(self) -> Int64[Tensor, "B P"]:
        """Row in `targets` that each prior learns, -1 for background, -2 for priors that take no part.

        Raises:
            ValueError: a prior learns several boxes (soft assigners); read `pairs` there.
        """
        shared = self._owners(self.pairs) > 1
        if bool(shared.any()):
            image, prior = shared.nonzero()[0].tolist()
            raise ValueError(
                f"expected one box per prior, got {int(self._owners(self.pairs)[image, prior])} for prior {prior} "
                f"of image {image}; this assignment has no gt_index, read its pairs instead"
            )
        index = torch.where(self.ignored, -2, -1)
        index[self.image, self.pairs.prior] = self.pairs.gt
        return index

    def stats(self) -> AssignmentStats:
        """Positives per box and level, boxes without any, contested priors.

        A prior is contested when several boxes are candidates for it; for assigners that do not list their
        candidates, when several boxes share it.
        """
        gts, levels = len(self.targets), max(len(self.levels), 1)
        slots = torch.bincount(self.pairs.gt * levels + self.level, minlength=gts * levels)
        level_positives = slots.reshape(gts, levels)
        positives = level_positives.sum(1)
        learned = self._owners(self.pairs) > 0
        rivals = self._owners(self.pairs if self.candidates is None else self.candidates)
        return AssignmentStats(
            positives=positives,
            level_positives=level_positives,
            starved=((positives == 0) & ~self.targets.ignore).nonzero().squeeze(1),
            contested=int((rivals > 1).sum()),
            ignored=int(self.ignored.sum()),
            background=int((~learned & ~self.ignored).sum()),
        )

    def _owners(self, pairs: Pairs) -> Int64[Tensor, "B P"]:
        """Number of boxes paired with each prior of each image."""
        images, priors = self.ignored.shape
        place = self.targets.image[pairs.gt] * priors + pairs.prior
        return torch.bincount(place, minlength=images * priors).reshape(images, priors)
