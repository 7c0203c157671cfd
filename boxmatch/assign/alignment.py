"""How well predictions classify and locate a box together: the score of task-aligned assignment."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..reproducible import power, sigmoid
from ..segments import segment_contenders, segment_topk
from ..structures import Pairs, Predictions, Targets
from .contested import Valued, select
from .measures import MAX_COORDINATE, Overlap, Similarity
from .story import Story
from .take import class_logits, places, predicted_boxes, quality_logits

LEAST = torch.finfo(torch.float32).tiny
"""Alignments below the smallest normal float32 count as none: devices differ in what they keep of them."""

BOUND_SLACK = 1e-4
"""Share by which the float32 estimate of an alignment may be too low, for exponents up to some hundreds."""

FEW_PAIRS = 2**13
"""As many pairs are scored in less time than it takes to find out which need not be."""


@dataclass(frozen=True)
class Alignment:
    """probability^alpha · similarity^beta of the predictions of a batch.

    Args:
        predictions: with boxes.
        prior_count: priors per image.
        alpha: exponent of the probability of the box's class, times that of an object if the network has it.
        beta: exponent of the similarity, not below 0, of the predicted box and the ground truth.
        similarity: how the two are compared.
    """

    predictions: Predictions
    prior_count: int
    alpha: float
    beta: float
    similarity: Similarity

    def of(self, pairs: Pairs, targets: Targets) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Similarity and alignment of each pair, the same bits wherever it stands."""
        place = places(pairs, targets, self.prior_count)
        predicted = predicted_boxes(self.predictions, place, "TaskAligned")
        overlap = self.similarity(take_boxes(targets.boxes, pairs.gt), predicted).clamp_(min=0)
        probability = sigmoid(class_logits(self.predictions, place, pairs, targets))
        quality = quality_logits(self.predictions, place)
        if quality is not None:
            probability.mul_(sigmoid(quality))
        return overlap, power(probability, self.alpha) * power(overlap, self.beta)

    def best(self, pairs: Pairs, targets: Targets, topk: int, story: Story) -> Valued:
        """The `topk` best aligned pairs of each box with overlap and alignment, less those without alignment.

        Args:
            story: is told the candidates, and which are not among the best.
        """
        if len(pairs) > FEW_PAIRS and isinstance(self.similarity, Overlap) and not story.active:
            pairs = pairs.select(self._contenders(pairs, targets, topk))
        overlap, alignment = self.of(pairs, targets)
        kept = segment_topk(alignment, pairs.gt, len(targets), topk).logical_and_(alignment >= LEAST)
        story.candidates(pairs, alignment)
        story.keep(kept, otherwise="not_topk")
        return select((pairs, (overlap, alignment)), kept.nonzero().squeeze(1))

    def _contenders(self, pairs: Pairs, targets: Targets, topk: int) -> Int64[Tensor, "M"]:
        """Pairs that can be among the best, by what float32 and the plain IoU tell."""
        place = places(pairs, targets, self.prior_count)
        bound = class_logits(self.predictions, place, pairs, targets).sigmoid_()
        quality = quality_logits(self.predictions, place)
        if quality is not None:
            bound.mul_(quality.sigmoid_())
        held = (
            take_boxes(targets.boxes, pairs.gt),
            predicted_boxes(self.predictions, place, "TaskAligned"),
        )
        # No member of the family is more than the IoU.
        iou = pair_iou(*(boxes.clamp(-MAX_COORDINATE, MAX_COORDINATE) for boxes in held))
        bound = (power(bound, self.alpha) * power(iou, self.beta)).mul_(1 + BOUND_SLACK)
        k = torch.full_like(targets.labels, topk)

        def exact(rows: Int64[Tensor, "R"]) -> Float[Tensor, "R"]:
            return self.of(pairs.select(rows), targets)[1]

        return segment_contenders(bound, pairs.gt, k, exact, LEAST)
