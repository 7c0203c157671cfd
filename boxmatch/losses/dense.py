"""The loss of dense detectors: class, box and quality terms for any assigner that gives hard pairs."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..boxes import pair_iou
from ..coders import BoxCoder
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .background import BackgroundFocal, Exceptions
from .centerness import centerness
from .functional import bce, check_gamma
from .giou import giou_loss
from .reduce import mean_over_ranks, rank_count

ClassLoss = Literal["focal", "qfl", "vfl", "bce"]
QualityTarget = Literal["centerness", "iou"]
ClassTarget = Literal["assigned", "iou"]

_LEAST_QUALITY = 1e-6
"""Bound of the sum of quality targets, which the originals divide by without one."""


class DenseLoss(nn.Module):
    """Class loss over all priors, box loss over the pairs, quality loss over the pairs.

    With x a class logit, p its sigmoid, y the target of a pair, u its quality target, w its weight and n the
    sum of all w (at least 1), means over the ranks in training:

    * class: Σ over priors and classes / n. Where nothing is assigned: focal (1 - alpha) p^gamma softplus(x),
      qfl p^gamma softplus(x), vfl alpha p^gamma softplus(x), bce softplus(x). Where a pair is: focal
      alpha (1 - p)^gamma softplus(-x) (y is 1), qfl |y - p|^gamma BCE, vfl y BCE, bce BCE.
    * box: box_weight · Σ w u (1 - GIoU) / Σ w u; without a quality target Σ w (1 - GIoU) / n.
    * quality: quality_weight · Σ BCE(quality logit, u) / n.

    Of several pairs for one prior and class the greatest target counts. Ignored priors have no class term. A
    batch without pairs gives exact zeros for box and quality, with every output in the graph. float32,
    outside autocast.

    Args:
        class_loss: which of the four.
        class_target: "assigned" takes the assignment's score (1 for hard assigners), "iou" multiplies it by
            the IoU of the predicted box, as Dynamic ATSS does.
        alpha: balance of focal (positives alpha, negatives 1 - alpha) and vfl (negatives alpha).
        gamma: exponent, 0 or at least 1.
        quality_target: what the quality branch learns and the box loss is weighted with: the centerness of
            the prior's centre in the box, or the IoU of the predicted box; None for heads without a branch.
        box_weight: of the box term; 2 in ATSS, 1.3 in PAA.
        quality_weight: of the quality term; 1 in ATSS, 0.5 in PAA.
        inclusive_pixels: GIoU and centerness see boxes without their last pixel, as in ATSS and PAA; for
            priors that are shifted by half a pixel (`AnchorGrid(shift=0.5)`).

    Raises:
        ValueError: an option is unknown or out of range.

    Source: Lin et al. 2017 (focal), Li et al. 2020 (qfl), Zhang et al. 2021 (vfl); sums and normalisers of
    ATSS, Dynamic ATSS and PAA.
    """

    def __init__(
        self,
        *,
        class_loss: ClassLoss = "focal",
        class_target: ClassTarget = "assigned",
        alpha: float | None = None,
        gamma: float = 2.0,
        quality_target: QualityTarget | None = "centerness",
        box_weight: float = 2.0,
        quality_weight: float = 1.0,
        inclusive_pixels: bool = False,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("class_loss", class_loss, get_args(ClassLoss)),
            ("class_target", class_target, get_args(ClassTarget)),
            ("quality_target", quality_target, (*get_args(QualityTarget), None)),
        ):
            if value not in known:
                raise ValueError(f"DenseLoss: expected {name} in {known}, got {value!r}")
        check_gamma(gamma)
        if alpha is not None and (class_loss not in _ALPHA or not 0 <= alpha <= 1):
            raise ValueError(
                f"DenseLoss: expected alpha in [0, 1] for {' or '.join(_ALPHA)}, got {alpha} for {class_loss}"
            )
        if class_loss == "focal" and class_target == "iou":
            raise ValueError(
                "DenseLoss: focal takes targets of 1; use qfl, vfl or bce with class_target='iou'"
            )
        if not all(0 <= weight < float("inf") for weight in (box_weight, quality_weight)):
            raise ValueError(
                f"DenseLoss: expected finite weights of 0 or more, got {box_weight=}, {quality_weight=}"
            )
        self.class_loss, self.class_target = class_loss, class_target
        self.alpha = _ALPHA.get(class_loss) if alpha is None else alpha
        self.gamma = 0.0 if class_loss == "bce" else gamma
        self.quality_target = quality_target
        self.box_weight, self.quality_weight = box_weight, quality_weight
        self.inclusive_pixels = inclusive_pixels

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: BoxCoder,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms "class", "box" and, with a quality target, "quality"; their sum is the loss.

        Args:
            priors: the priors of the predictions.
            targets: the objects the assignment's pairs index.
            predictions: class logits, deltas and, with a quality target, quality logits.
            assignment: who learns what.
            coder: decodes the deltas of the pairs.

        Raises:
            ValueError: the quality logits are missing, or a label is no class of the predictions.
        """
        if self.quality_target is not None and predictions.quality is None:
            raise ValueError(
                f"DenseLoss: expected quality logits for quality_target={self.quality_target!r}, got None; "
                "give the head a quality branch or set quality_target to None"
            )
        with torch.autocast(predictions.deltas.device.type, enabled=False):
            pairs, image = assignment.pairs, assignment.image
            deltas = predictions.deltas[image, pairs.prior].float()
            boxes = coder.decode_xyxy(deltas, priors, pairs.prior)
            gts = targets.boxes[pairs.gt]
            quality = self._quality(boxes, gts, priors, pairs)
            score = assignment.score
            if self.class_target == "iou":
                score = score * pair_iou(boxes.detach(), gts)
            share = assignment.weight if quality is None else assignment.weight * quality
            count, share_sum = self._normalisers(assignment, share)
            giou = giou_loss(boxes, gts, inclusive_pixels=self.inclusive_pixels)
            terms = {
                "class": self._classification(predictions.logits, targets, assignment, score) / count,
                "box": self.box_weight * (share * giou).sum() / (count if quality is None else share_sum),
            }
            if quality is not None and predictions.quality is not None:
                logits = predictions.quality[image, pairs.prior].float()
                learned = (assignment.weight > 0).float()
                terms["quality"] = self.quality_weight * (learned * bce(logits, quality)).sum() / count
            return terms

    @torch.no_grad()
    def _quality(
        self, boxes: Float[Tensor, "N 4"], gts: Float[Tensor, "N 4"], priors: Priors, pairs: Pairs
    ) -> Float[Tensor, "N"] | None:
        """What the quality branch learns at each pair."""
        if self.quality_target is None:
            return None
        if self.quality_target == "iou":
            return pair_iou(boxes, gts)
        centers = priors.centers[pairs.prior]
        if self.inclusive_pixels:
            # Back to edges that lie on the middle of their pixels.
            centers, gts = centers - 0.5, gts - gts.new_tensor([0.0, 0.0, 1.0, 1.0])
        return centerness(centers, gts)

    def _normalisers(
        self, assignment: Assignment, share: Float[Tensor, "N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """n and the sum of the box weights, means over the ranks."""
        sums = torch.stack((assignment.weight.detach().sum(), share.sum()))
        # Not in evaluation: ranks may hold different numbers of batches, and one would wait for ever.
        ranks = rank_count() if self.training else 1
        if ranks > 1:
            sums = mean_over_ranks(sums)
        return sums[0].clamp(min=1 / ranks), sums[1].clamp(min=_LEAST_QUALITY)

    def _classification(
        self, logits: Float[Tensor, "B P C"], targets: Targets, assignment: Assignment, score: Tensor
    ) -> Float[Tensor, ""]:
        """Sum of the class loss: the background everywhere but at the pairs, and the pairs."""
        logits = logits.float().contiguous()
        classes = logits.shape[2]
        if len(targets) and int(targets.labels.max()) >= classes:
            raise ValueError(
                f"DenseLoss: expected labels below {classes}, the number of classes of the predictions, got "
                f"{int(targets.labels.max())}; give the detector as many classes as the data has"
            )
        # A score of 0 teaches the box only.
        rows = (assignment.score > 0).nonzero().squeeze(1)
        image = assignment.image[rows]
        place = image * logits.shape[1] + assignment.pairs.prior[rows]
        entry = place * classes + targets.labels[assignment.pairs.gt[rows]]
        exceptions = Exceptions(entry, image, torch.ones_like(score[rows]), assignment.ignored, inside=False)
        gradient = torch.is_grad_enabled() and logits.requires_grad
        background: Tensor = BackgroundFocal.apply(logits, None, exceptions, self.gamma, gradient)
        entry, target = _greatest(entry, score[rows])
        return self._background_factor() * background + self._positive(
            logits.flatten().index_select(0, entry), target
        )

    def _background_factor(self) -> float:
        if self.alpha is None:
            return 1.0
        return 1 - self.alpha if self.class_loss == "focal" else self.alpha

    def _positive(self, logits: Float[Tensor, "N"], target: Float[Tensor, "N"]) -> Float[Tensor, ""]:
        """Sum of the class loss of the pairs."""
        surprise = bce(logits, torch.ones_like(target) if self.class_loss == "focal" else target)
        if self.class_loss == "focal":
            assert self.alpha is not None
            surprise = self.alpha * (1 - logits.sigmoid()).pow(self.gamma) * surprise
        elif self.class_loss == "qfl":
            surprise = (target - logits.sigmoid()).abs().pow(self.gamma) * surprise
        elif self.class_loss == "vfl":
            surprise = target * surprise
        return surprise.sum()

    def extra_repr(self) -> str:
        return (
            f"class_loss={self.class_loss!r}, class_target={self.class_target!r}, alpha={self.alpha}, "
            f"gamma={self.gamma}, quality_target={self.quality_target!r}, box_weight={self.box_weight}, "
            f"quality_weight={self.quality_weight}, inclusive_pixels={self.inclusive_pixels}"
        )


_ALPHA = {"focal": 0.25, "vfl": 0.75}
"""The papers' balance, for the losses that have one."""


def _greatest(
    entry: Int64[Tensor, "N"], target: Float[Tensor, "N"]
) -> tuple[Int64[Tensor, "M"], Float[Tensor, "M"]]:
    """Each entry once, with the greatest of its targets."""
    unique, which = entry.unique(return_inverse=True)
    best = target.new_zeros(len(unique)).scatter_reduce(0, which, target, "amax", include_self=False)
    return unique, best
