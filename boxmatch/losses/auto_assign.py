"""Loss of AutoAssign: each box asks its weighted priors together, everything else is background."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ..boxes import pair_giou, take_boxes
from ..priors import Priors
from ..segments import segment_sum
from ..structures import Assignment, Predictions, Targets
from .background import BackgroundFocal
from .functional import check_gamma
from .reduce import mean_over_ranks, rank_count
from .soft_pairs import SoftPairs, at_least_float32, wants_gradient, without_graph_of_many

_EPS = 1e-12  # of the published code


class AutoAssignLoss(nn.Module):
    """Three terms over the soft pairs of `AutoAssign`, with gradients through their weights.

    With P the joint confidence, W the positive weight, w the centre prior and k the negative weight of a pair
    (1 elsewhere), s = sigmoid(class logit) · sigmoid(objectness logit):

    * positive: pos_weight / n_pos · Σ over boxes of -ln Σ W P; a box without a pair adds nothing
    * negative: neg_weight / n_neg · Σ (k s)^neg_gamma (-ln(1 - k s)) over all priors and classes
    * center: center_weight · mean over images of (number of boxes / Σ w); 0 for an image without a pair

    n_pos is the number of boxes, n_neg the sum of w; both are means over the ranks in training mode, and at
    least 1. Every output of the network and both parameters of the assigner are in the graph, also in a batch
    without objects.

    Args:
        pos_weight: of the positive term.
        neg_weight: of the negative term.
        center_weight: of the centre term, which keeps the learned prior from shrinking to nothing.
        beta: weight of the box loss within the joint confidence, that of the assigner.
        neg_gamma: exponent of the negative term, 0 or at least 1.

    Raises:
        ValueError: a number is out of range.

    Source: Zhu et al. 2020 (AutoAssign), eq. 9; open-mmlab/mmdetection, `autoassign_head.py`.
    """

    def __init__(
        self,
        *,
        pos_weight: float = 0.25,
        neg_weight: float = 0.75,
        center_weight: float = 0.75,
        beta: float = 5.0,
        neg_gamma: float = 2.0,
    ) -> None:
        super().__init__()
        check_gamma(neg_gamma, "neg_gamma")
        if not all(0 <= number < float("inf") for number in (pos_weight, neg_weight, center_weight, beta)):
            raise ValueError(
                "AutoAssignLoss: expected finite weights and beta of 0 or more, got "
                f"{pos_weight=}, {neg_weight=}, {center_weight=}, {beta=}"
            )
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight
        self.center_weight = center_weight
        self.beta = beta
        self.neg_gamma = neg_gamma

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: object = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms "positive", "negative" and "center"; their sum is the loss.

        Args:
            priors: not used.
            targets: the objects the assignment's pairs index.
            predictions: class logits, decoded boxes in pixels with their graph, and objectness logits
                (`quality`) or None of the latter; the same, not detached, that the assigner saw.
            assignment: of `AutoAssign`, with the graph of its weights.
            coder: not used; boxes come decoded.

        Raises:
            ValueError: predictions without boxes, or a label that is no class of the predictions.
        """
        if predictions.boxes is None:
            raise ValueError(
                "AutoAssignLoss: expected decoded boxes (xyxy px) in predictions.boxes, got None"
            )
        with torch.autocast(predictions.logits.device.type, enabled=False):
            predictions = at_least_float32(predictions)
            pairs = SoftPairs(assignment, targets, predictions.logits.shape[2], inside=True)
            positives, negatives = self._normalisers(targets, assignment.score)
            return {
                "positive": self.pos_weight * self._positive(pairs, predictions) / positives,
                "negative": self.neg_weight * self._negative(pairs, predictions) / negatives,
                "center": self.center_weight * _center(targets, assignment),
            }

    def _positive(self, pairs: SoftPairs, predictions: Predictions) -> Tensor:
        """Σ over boxes of -ln Σ W P."""
        gt, count = pairs.assignment.pairs.gt, len(pairs.targets)
        # Once for all pairs: the gradient of each look-up is as large as all logits.
        logit = predictions.logits.flatten().index_select(0, pairs.entries(slice(0, len(pairs))))
        part = without_graph_of_many(self._confidence, len(pairs))
        # One empty piece at least: it keeps the predictions in the graph.
        pieces = pairs.pieces() or [slice(0, 0)]
        confidence = torch.stack([part(pairs, rows, logit[rows], predictions) for rows in pieces]).sum(0)
        # A box without a pair: ln 1. Others are above 0, and held there where float32 loses them.
        served = torch.bincount(gt, minlength=count) > 0
        tiny = torch.finfo(confidence.dtype).tiny
        return -torch.where(served, confidence.clamp(min=tiny), 1).log().sum()

    def _confidence(self, pairs: SoftPairs, rows: slice, logit: Tensor, predictions: Predictions) -> Tensor:
        """Σ W P of each box over some pairs."""
        assert predictions.boxes is not None
        place, gt = pairs.places(rows), pairs.assignment.pairs.gt[rows]
        predicted = take_boxes(predictions.boxes.flatten(0, 1), place)
        giou = pair_giou(predicted, pairs.boxes(rows, predicted.dtype))
        log_joint = logsigmoid(logit) - self.beta * (1 - giou)
        if predictions.quality is not None:
            log_joint = log_joint + logsigmoid(predictions.quality.flatten().index_select(0, place))
        return segment_sum(log_joint.exp() * pairs.assignment.weight[rows], gt, len(pairs.targets))

    def _negative(self, pairs: SoftPairs, predictions: Predictions) -> Tensor:
        logits, quality = predictions.logits, predictions.quality
        value: Tensor = BackgroundFocal.apply(
            logits, quality, pairs, self.neg_gamma, wants_gradient(logits, quality)
        )
        return value

    @torch.no_grad()
    def _normalisers(self, targets: Targets, prior: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.stack(((~targets.ignore).sum().to(prior.dtype), prior.sum()))
        # Not in evaluation: ranks may hold different numbers of batches, and one would wait for ever.
        if self.training and rank_count() > 1:
            counts = mean_over_ranks(counts)
        positives, negatives = counts.clamp(min=1).unbind()
        return positives, negatives

    def extra_repr(self) -> str:
        return (
            f"pos_weight={self.pos_weight}, neg_weight={self.neg_weight}, "
            f"center_weight={self.center_weight}, beta={self.beta}, neg_gamma={self.neg_gamma}"
        )


def _center(targets: Targets, assignment: Assignment) -> Tensor:
    """Mean over images of (number of boxes / Σ w)."""
    images = targets.batch_size
    objects = torch.bincount(targets.image[~targets.ignore], minlength=images)
    total = segment_sum(assignment.score, assignment.image, images)
    share = torch.where(total > 0, objects / total.clamp(min=_EPS), 0 * total)
    return share.sum() / max(images, 1)
