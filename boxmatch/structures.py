"""The few types that all rooms share.

Letters: B images, G ground truths of the whole batch, P priors, L levels, C classes, N pairs, K detections.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .assignment_stats import AssignmentStats
from .targets import Targets

__all__ = [
    "REASONS",
    "Assignment",
    "AssignmentStats",
    "Detections",
    "Explanation",
    "Level",
    "Pairs",
    "Predictions",
    "Targets",
]


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
        boxes: decoded xyxy in pixels, or None where nobody asked for them (assigners that look at priors
            only).
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
        # Lists are long, and a mask or index in brackets takes several times as long on a CPU.
        rows = keep.nonzero().squeeze(1) if keep.dtype == torch.bool else keep
        return Pairs(self.gt.index_select(0, rows), self.prior.index_select(0, rows))


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


REASONS = (
    "kept",
    "outside",
    "wrong_level",
    "below_threshold",
    "not_topk",
    "lost_to_gt",
    "ignored",
)
"""What may have become of a candidate pair; `Explanation.reason` counts from 0 in this order.

* kept: the prior learns the box.
* outside: the prior's centre does not lie where the rule wants it.
* wrong_level: the box's size is not one that the prior's level is meant for.
* below_threshold: the score did not reach the threshold.
* not_topk: other priors of the same box had better scores, and the rule keeps a limited number.
* lost_to_gt: another box of the image got the prior.
* ignored: the rule leaves the prior out of training.
"""


@dataclass(frozen=True)
class Explanation:
    """What became of each candidate pair, and why; ordered by ground truth, then prior, no pair twice.

    Args:
        pairs: all pairs that the rule looked at.
        score: what the rule compared, more is better (costs with their sign changed); nan where it has none.
        threshold: what the score had to reach; nan where the rule has none.
        reason: position in `REASONS`.
    """

    pairs: Pairs
    score: Float[Tensor, "N"]
    threshold: Float[Tensor, "N"]
    reason: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.pairs)

    def counts(self) -> dict[str, int]:
        """Number of pairs per reason."""
        counts = torch.bincount(self.reason, minlength=len(REASONS)).tolist()
        return dict(zip(REASONS, counts))

    def of(self, gt: int) -> "Explanation":
        """The pairs of one ground truth.

        Args:
            gt: row in the targets.
        """
        rows = (self.pairs.gt == gt).nonzero().squeeze(1)
        return Explanation(self.pairs.select(rows), self.score[rows], self.threshold[rows], self.reason[rows])

    def __str__(self) -> str:
        told = [f"{count} {reason}" for reason, count in self.counts().items() if count]
        return f"{len(self)} candidate pairs: {', '.join(told) if told else 'none'}"


@dataclass(frozen=True)
class Assignment:
    """Who teaches whom: sparse pairs with the strength of each.

    Args:
        pairs: positive (ground truth, prior) pairs, ordered by ground truth; no pair occurs twice.
        weight: strength of the positive term of each pair; a pair of weight 0 teaches its prior no box, only
            the class (YOLOv3, where several boxes want one prior).
        score: class target in [0, 1] of each pair; 1 for hard assigners. A pair of score 0 teaches its prior
            only the box (Uniform).
        neg_weight: strength of the negative term for (prior, class of the ground truth); 0 for hard
            assigners.
        ignored: priors that take no part in any term.
        targets: the ground truths the pairs index.
        levels: the levels the priors lie on, in order; empty for priors without a grid.
        candidates: the pairs before each contested prior chose one owner, where the assigner knows them.
        explanation: what became of every candidate, where the call asked for it with `explain=True`.
    """

    pairs: Pairs
    weight: Float[Tensor, "N"]
    score: Float[Tensor, "N"]
    neg_weight: Float[Tensor, "N"]
    ignored: Bool[Tensor, "B P"]
    targets: Targets
    levels: tuple[Level, ...] = ()
    candidates: Pairs | None = None
    explanation: Explanation | None = None

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

        Where several boxes share a prior, the one that teaches it both its box and its class counts: the one
        of weight and score above 0.

        Raises:
            ValueError: a prior learns several boxes (soft assigners); read `pairs` there.
        """
        pairs, image, owners = self.pairs, self.image, self._owners(self.pairs)
        if bool((owners > 1).any()):
            alone = owners[image, pairs.prior] == 1
            rows = (alone | ((self.weight > 0) & (self.score > 0))).nonzero().squeeze(1)
            pairs, image = pairs.select(rows), image[rows]
            owners = self._owners(pairs)
        if bool((owners > 1).any()):
            first, prior = (owners > 1).nonzero()[0].tolist()
            raise ValueError(
                f"expected one box per prior, got {int(owners[first, prior])} for prior {prior} of "
                f"image {first}; this assignment has no gt_index, read its pairs instead"
            )
        index = torch.where(self.ignored, -2, -1)
        index[image, pairs.prior] = pairs.gt
        return index

    def stats(self) -> AssignmentStats:
        """Positives per box and level, boxes without any, contested priors.

        A prior is contested when several boxes are candidates for it; for assigners that do not list their
        candidates, when several boxes share it. Pairs of weight 0 are no positives.
        """
        gts, levels = len(self.targets), max(len(self.levels), 1)
        rows = (self.weight > 0).nonzero().squeeze(1)
        pairs = self.pairs.select(rows)
        slots = torch.bincount(pairs.gt * levels + self.level[rows], minlength=gts * levels)
        level_positives = slots.reshape(gts, levels)
        positives = level_positives.sum(1)
        learned = self._owners(pairs) > 0
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
