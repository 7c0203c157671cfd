"""Loss of dual weighting: positive terms over pairs, a focal background term over everything."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .dual_weight_sums import DualWeightSums
from .functional import check_gamma
from .reduce import mean_over_ranks, rank_count
from .soft_diagnostics import soft_diagnostics
from .soft_pairs import SoftPairs, at_least_float32, wants_gradient

NegativeNormFallback = Literal["ema", "clamp1"]


class DualWeightLoss(nn.Module):
    """Weighted sums over soft pairs, for assigners that give a prior a positive and a negative weight.

    With s = sigmoid(class logit) · sigmoid(objectness logit), w and P the positive and negative weights:

    * class_positive: class_weight / n_pos · Σ w (-ln s) over the pairs
    * box: loc_weight / n_pos · Σ w (1 - GIoU) over the pairs
    * class_negative: neg_weight / n_neg · Σ P s^neg_gamma (-ln(1 - s)) over all priors and classes

    n_pos is the number of objects, those without a pair included; n_neg the sum of 1 - P over all priors and
    classes; both are means over the ranks in training mode, and at least 1. The third term is the background
    branch of a focal loss; objectness has no target of its own. The class target of a pair is 1 whatever its
    `score`. All terms are computed in logit space, float32, outside autocast; logits beyond ± 60 count as
    that in the third. Every output of the network is in the graph, also in a batch without objects.

    In training mode `diagnostics` holds what `soft_diagnostics` says about the last batch of this rank, for
    the log of a run.

    Args:
        class_weight: of the positive class term.
        loc_weight: of the box term; 0.25 · 5 in the original, where 5 is also the exponent `beta` of the
            assigner. Here they are two numbers.
        neg_weight: of the background term.
        neg_gamma: focal exponent of the background term, 0 or at least 1.
        neg_norm_fallback: n_neg of a batch without objects, where no P differs from 1. "clamp1": 1, as
            published, so that every false positive suddenly weighs n_neg times as much; "ema": its running
            mean over training batches with objects, which is saved with the weights.
        momentum: of that mean.

    Raises:
        ValueError: an option is unknown or out of range.

    Source: strongwolf/DW, `dw_head.py`.
    """

    running_negatives: Tensor

    def __init__(
        self,
        *,
        class_weight: float = 0.25,
        loc_weight: float = 1.25,
        neg_weight: float = 1.0,
        neg_gamma: float = 2.0,
        neg_norm_fallback: NegativeNormFallback = "ema",
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        check_gamma(neg_gamma, "neg_gamma")
        if neg_norm_fallback not in get_args(NegativeNormFallback):
            raise ValueError(
                f"DualWeightLoss: expected neg_norm_fallback in {get_args(NegativeNormFallback)}, got "
                f"{neg_norm_fallback!r}"
            )
        if not all(0 <= weight < float("inf") for weight in (class_weight, loc_weight, neg_weight)):
            raise ValueError(
                "DualWeightLoss: expected finite weights of 0 or more, got "
                f"{class_weight=}, {loc_weight=}, {neg_weight=}"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"DualWeightLoss: expected momentum in [0, 1), got {momentum}")
        self.class_weight = class_weight
        self.loc_weight = loc_weight
        self.neg_weight = neg_weight
        self.neg_gamma = neg_gamma
        self.neg_norm_fallback: NegativeNormFallback = neg_norm_fallback
        self.momentum = momentum
        self.diagnostics: dict[str, Tensor] = {}
        # 0: no batch with objects yet.
        self.register_buffer("running_negatives", torch.zeros(()))

    @classmethod
    def official(cls, **options: Any) -> "DualWeightLoss":
        """The published code."""
        return cls(**{"neg_norm_fallback": "clamp1", **options})

    @classmethod
    def paper(cls, **options: Any) -> "DualWeightLoss":
        """The same: paper and code differ in the weights of the pairs, which the assigner gives."""
        return cls.official(**options)

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: object = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms "class_positive", "box" and "class_negative"; their sum is the loss.

        Args:
            priors: not used.
            targets: the objects the assignment's pairs index.
            predictions: class logits, decoded boxes in pixels with their graph, and objectness logits
                (`quality`), or None of the latter: then s = sigmoid(class logit).
            assignment: pairs with both weights, which are constants here.
            coder: not used; boxes come decoded.

        Raises:
            ValueError: predictions without boxes, or a label that is no class of the predictions.
        """
        if predictions.boxes is None:
            raise ValueError(
                "DualWeightLoss: expected decoded boxes (xyxy px) in predictions.boxes, got None; use an "
                "assigner that reads predictions, or decode them"
            )
        with torch.autocast(predictions.logits.device.type, enabled=False):
            wide = at_least_float32(predictions)
            logits, boxes, quality = wide.logits, wide.boxes, wide.quality
            pairs = SoftPairs(assignment, targets, logits.shape[2], inside=False)
            class_sum, box_sum, background, spared = DualWeightSums.apply(
                logits, quality, boxes, pairs, self.neg_gamma, wants_gradient(logits, quality, boxes)
            )
            positives, negatives = self.normalisers(assignment.targets, spared)
            terms = {
                "class_positive": self.class_weight * class_sum / positives,
                "box": self.loc_weight * box_sum / positives,
                "class_negative": self.neg_weight * background / negatives,
            }
            if self.training:
                self.diagnostics = soft_diagnostics(
                    pairs,
                    targets,
                    positive=terms["class_positive"] + terms["box"],
                    negative=terms["class_negative"],
                    normaliser=negatives,
                )
            return terms

    @torch.no_grad()
    def normalisers(
        self, targets: Targets, spared: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """n_pos and n_neg of a batch.

        Args:
            spared: Σ (1 - P) of this rank.
        """
        counts = torch.stack(((~targets.ignore).sum().to(spared.dtype), spared))
        # Not in evaluation: ranks may hold different numbers of batches, and one would wait for ever.
        if self.training and rank_count() > 1:
            counts = mean_over_ranks(counts)
        objects, negatives = counts.unbind()
        negatives = negatives.clamp(min=1)
        if self.neg_norm_fallback == "ema":
            negatives = self._with_memory(objects, negatives)
        return objects.clamp(min=1), negatives

    def _with_memory(self, objects: Tensor, negatives: Tensor) -> Tensor:
        """n_neg, from memory where the batch has no objects on any rank."""
        old = self.running_negatives
        new = torch.where(old > 0, self.momentum * old + (1 - self.momentum) * negatives, negatives)
        if self.training:
            self.running_negatives.copy_(torch.where(objects > 0, new, old))
        return torch.where(objects > 0, negatives, old.to(negatives.dtype).clamp(min=1))

    def extra_repr(self) -> str:
        return (
            f"class_weight={self.class_weight}, loc_weight={self.loc_weight}, neg_weight={self.neg_weight}, "
            f"neg_gamma={self.neg_gamma}, neg_norm_fallback={self.neg_norm_fallback!r}, "
            f"momentum={self.momentum}"
        )
