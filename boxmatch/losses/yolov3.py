"""Loss of YOLOv3: plain sums over all cells, with the boxes compared as the head gives them."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..boxes import box_centers, box_sizes
from ..coders import GridCoder
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .functional import bce
from .reduce import mean_over_ranks, rank_count

Reduction = Literal["sum", "mean_batch", "mean_positives"]


def box_targets(priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "N 4"]:
    """What the head should say of each pair's box: (x, y, log width ratio, log height ratio).

    x and y are where in the prior's cell the centre lies, in [0, 1]: the targets of sigmoid(tx) and
    sigmoid(ty); 0 or 1 for a centre outside the cell. The ratios are to the anchor, the targets of tw and th.

    Source: Redmon & Farhadi 2018 (YOLOv3), sec. 2.1.
    """
    boxes, stride = targets.boxes[pairs.gt], priors.stride[pairs.prior, None]
    corner = priors.centers[pairs.prior] - stride / 2
    offset = ((box_centers(boxes) - corner) / stride).clamp(0, 1)
    return torch.cat((offset, (box_sizes(boxes) / priors.wh[pairs.prior]).log()), dim=1)


def box_scale(priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "N"]:
    """Weight of each pair's box, 2 - its share of the picture: from 1 for the whole picture to 2.

    Boxes that reach over the picture have less than 1, and 0 at the least.

    Source: pjreddie/darknet, src/yolo_layer.c; not in the paper.
    """
    level = priors.levels[0]
    picture = level.width * level.height * level.stride**2
    return (2 - box_sizes(targets.boxes[pairs.gt]).prod(1) / picture).clamp(min=0)


class YOLOv3Loss(nn.Module):
    """Cross-entropy of centre, objectness and classes, half the squared error of the log sizes; summed.

    * center: of each positive box, cross-entropy of sigmoid(tx) and sigmoid(ty) against the place in the
      cell, times `box_scale`. Its least value is not 0.
    * size: half the squared errors of tw and th against the log ratios to the anchor, times `box_scale`.
    * objectness: cross-entropy of all priors that take part; 1 for positives, 0 for the others.
    * class: of each positive prior, cross-entropy of all classes against the scores of its pairs, those of
      weight 0 included: several boxes may have given it their classes.

    With logits, float32, outside autocast; the original takes the logarithm of rounded sigmoids and has no
    gradient left where it is most wrong. Sums over a distributed run are those of all its pictures.

    Args:
        reduction: "sum" as in the original, whose learning rate is divided by the batch size instead;
            "mean_batch" divides by the pictures of the batch, "mean_positives" by the positive boxes of all
            ranks, at least 1.

    Raises:
        ValueError: unknown reduction; in the call, predictions without objectness.

    Source: DeNA/PyTorch_YOLOv3 (commit 1a3cd6e), models/yolo_layer.py; the gradients are those of
    pjreddie/darknet, src/yolo_layer.c.
    """

    def __init__(self, *, reduction: Reduction = "sum") -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ValueError(f"YOLOv3Loss: expected reduction in {get_args(Reduction)}, got {reduction!r}")
        self.reduction: Reduction = reduction

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: GridCoder | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The four terms; their sum is the loss.

        Args:
            priors: anchors on a grid.
            targets: the objects the assignment's pairs index.
            predictions: class logits, deltas (tx, ty, tw, th) and objectness logits (`quality`).
            assignment: who learns what.
            coder: not used: boxes are compared as deltas.

        Raises:
            ValueError: predictions have no quality, or the priors lie on no grid.
        """
        if predictions.quality is None:
            raise ValueError("YOLOv3Loss: expected objectness logits in predictions.quality, got None")
        if not priors.levels:
            raise ValueError("YOLOv3Loss: expected anchors on a grid, got free boxes; use AnchorGrid")
        with torch.autocast(predictions.deltas.device.type, enabled=False):
            positive = assignment.weight > 0
            center, size = self._box(priors, targets, predictions, assignment, positive)
            terms = {
                "center": center,
                "size": size,
                "objectness": self._objectness(predictions.quality, assignment, positive),
                "class": self._classification(targets, predictions, assignment),
            }
            factor = self._factor(assignment, positive)
            return {name: factor * term for name, term in terms.items()}

    def _factor(self, assignment: Assignment, positive: Bool[Tensor, "N"]) -> Tensor | float:
        ranks = rank_count() if self.training else 1
        if self.reduction == "mean_positives":
            count = positive.sum()[None].float()
            # Not in evaluation: ranks may hold different numbers of batches, and one would wait for ever.
            return 1 / (mean_over_ranks(count) if self.training else count).clamp(min=1 / ranks).squeeze(0)
        if self.reduction == "mean_batch":
            return 1 / max(assignment.targets.batch_size, 1)
        # Distributed training averages the gradients of the ranks: this makes it their sum.
        return float(ranks)

    def _box(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        positive: Bool[Tensor, "N"],
    ) -> tuple[Tensor, Tensor]:
        pairs, place = assignment.pairs.select(positive), _place(assignment)[positive]
        wanted = box_targets(priors, targets, pairs)
        strength = (box_scale(priors, targets, pairs) * assignment.weight[positive])[:, None]
        deltas = predictions.deltas.flatten(0, 1).index_select(0, place).float()
        center = (strength * bce(deltas[:, :2], wanted[:, :2])).sum()
        return center, (strength * (deltas[:, 2:] - wanted[:, 2:]).square()).sum() / 2

    def _objectness(self, logits: Tensor, assignment: Assignment, positive: Bool[Tensor, "N"]) -> Tensor:
        wanted = torch.zeros(logits.numel(), device=logits.device)
        wanted.scatter_reduce_(0, _place(assignment)[positive], assignment.score[positive], "amax")
        loss = bce(logits.float(), wanted.view_as(logits))
        return loss.masked_fill(assignment.ignored, 0).sum()

    def _classification(self, targets: Targets, predictions: Predictions, assignment: Assignment) -> Tensor:
        places, row = _place(assignment).unique(return_inverse=True)
        logits = predictions.logits.flatten(0, 1).index_select(0, places).float()  # (M, C)
        label = targets.labels[assignment.pairs.gt, None]
        of_pair = logits.new_zeros(len(row), logits.shape[1]).scatter(1, label, assignment.score[:, None])
        wanted = torch.zeros_like(logits).scatter_reduce(0, row[:, None].expand_as(of_pair), of_pair, "amax")
        weight = logits.new_zeros(len(places)).scatter_reduce(0, row, assignment.weight, "amax")
        return (weight[:, None] * bce(logits, wanted)).sum()


def _place(assignment: Assignment) -> Tensor:
    """Position of each pair's prior in a (B, P) map laid out as one row, (N,)."""
    return assignment.image * assignment.ignored.shape[1] + assignment.pairs.prior
