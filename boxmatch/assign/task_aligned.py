"""Task-aligned assignment: each box keeps the priors that classify and locate it best together."""

from typing import ClassVar

import torch
from torch import Tensor

from ..boxes import take_boxes
from ..losses.box_similarity import SimilarityKind, box_similarity, check_similarity
from ..priors import Priors
from ..reproducible import power, sigmoid
from ..segments import segment_max, segment_topk
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .pick import owners
from .piecewise import piecewise
from .story import Story
from .take import class_logits, places, predicted_boxes, quality_logits


class TaskAligned(Assigner):
    """Inside the box → probability^alpha · similarity^beta → best `topk` → greatest overlap owns the prior.

    The probability is that of the box's class, times that of an object where the network has such a branch;
    the similarity is that of the predicted box, not below 0. A pair's weight and score are its alignment,
    scaled so that the best pair of each box has the box's best similarity: a soft target that tells the
    network which prediction to trust. A box that no prediction inside it overlaps gets no pair.

    Args:
        alpha: exponent of the probability; 0.5 in the YOLO detectors, 1 in the paper.
        beta: exponent of the similarity; 6 in both.
        topk: pairs that each box keeps before contested priors are resolved; 10 in the YOLO detectors, 13 in
            the paper.
        similarity: how the predicted box is compared.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Feng et al. 2021 (TOOD), eq. 2 and 3. There the top-k comes before the test for inside; here, as
    in the YOLO detectors, after it, so that a box always chooses among the priors it may use.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 6.0,
        topk: int = 10,
        similarity: SimilarityKind = "ciou",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (alpha >= 0 and beta >= 0 and topk >= 1):
            raise ValueError(
                f"expected alpha and beta of 0 or more and topk of 1 or more, got {alpha=}, {beta=}, {topk=}"
            )
        check_similarity(similarity, "similarity")
        self.alpha = alpha
        self.beta = beta
        self.topk = topk
        self.similarity: SimilarityKind = similarity

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        lengths = priors.count_inside(targets)

        def shortlist(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            return self._shortlist(priors, part, predictions, story)

        selected, (overlap, alignment) = piecewise(targets, lengths, shortlist, story)
        owned = owners(selected, overlap, targets, len(priors))
        pairs, overlap, alignment = selected.select(owned), overlap[owned], alignment[owned]
        # Every box here owns a pair, so its maxima are above 0.
        best_alignment = segment_max(alignment, pairs.gt, len(targets))[pairs.gt]
        score = alignment / best_alignment * segment_max(overlap, pairs.gt, len(targets))[pairs.gt]
        return Assignment(
            pairs=pairs,
            weight=score,
            score=score,
            neg_weight=torch.zeros_like(score),
            ignored=torch.zeros((targets.batch_size, len(priors)), dtype=torch.bool, device=score.device),
            targets=targets,
            levels=priors.levels,
            candidates=selected,
        )

    def _shortlist(
        self, priors: Priors, targets: Targets, predictions: Predictions, story: Story
    ) -> tuple[Pairs, tuple[Tensor, Tensor]]:
        """The `topk` pairs of each box with their overlap and alignment."""
        pairs = priors.inside(targets)
        place = places(pairs, targets, len(priors))
        predicted = predicted_boxes(predictions, place, "TaskAligned")
        gts = take_boxes(targets.boxes, pairs.gt)
        overlap = box_similarity(predicted, gts, self.similarity).clamp_(min=0)
        probability = sigmoid(class_logits(predictions, place, pairs, targets))
        quality = quality_logits(predictions, place)
        if quality is not None:
            probability.mul_(sigmoid(quality))
        alignment = power(probability, self.alpha) * power(overlap, self.beta)
        kept = segment_topk(alignment, pairs.gt, len(targets), self.topk).logical_and_(alignment > 0)
        story.candidates(pairs, alignment)
        story.keep(kept, otherwise="not_topk")
        rows = kept.nonzero().squeeze(1)
        return pairs.select(rows), (overlap.index_select(0, rows), alignment.index_select(0, rows))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, topk={self.topk}, similarity={self.similarity!r}"
