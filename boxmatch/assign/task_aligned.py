"""Task-aligned assignment: each box keeps the priors that classify and locate it best together."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..losses.box_similarity import SimilarityKind, box_similarity, check_similarity
from ..priors import Priors
from ..segments import segment_max, segment_topk
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .pick import owners


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

    def assign(self, priors: Priors, targets: Targets, predictions: Predictions | None) -> Assignment:
        if predictions is None or predictions.boxes is None:
            raise ValueError(
                "TaskAligned compares predicted boxes, got none; pass predictions with decoded boxes"
            )
        candidates = priors.inside(targets)
        overlap = self._overlap(predictions.boxes, candidates, targets)
        probability = self._probability(predictions, candidates, targets)
        alignment = probability.pow(self.alpha) * overlap.pow(self.beta)
        kept = segment_topk(alignment, candidates.gt, len(targets), self.topk) & (alignment > 0)
        selected = candidates.select(kept)
        overlap, alignment = overlap[kept], alignment[kept]
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

    def _overlap(self, boxes: Float[Tensor, "B P 4"], pairs: Pairs, targets: Targets) -> Float[Tensor, "N"]:
        """Similarity of each pair's predicted box to its object, at least 0."""
        predicted, gts = boxes[targets.image[pairs.gt], pairs.prior], targets.boxes[pairs.gt]
        return box_similarity(predicted, gts, self.similarity).clamp(min=0)

    def _probability(self, predictions: Predictions, pairs: Pairs, targets: Targets) -> Float[Tensor, "N"]:
        """Predicted probability of each pair's class, times that of an object if there is such a branch."""
        image = targets.image[pairs.gt]
        probability = predictions.logits[image, pairs.prior, targets.labels[pairs.gt]].sigmoid()
        if predictions.quality is None:
            return probability
        return probability * predictions.quality[image, pairs.prior].sigmoid()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, topk={self.topk}, similarity={self.similarity!r}"
