"""The loss of a region proposal network: objectness, boxes and their IoU, of a random sample."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import pair_iou
from ..coders import BoxCoder
from ..delta_coder import DeltaCoder
from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .functional import bce
from .sampling import balanced_sample

_LAST_PIXEL = (0.0, 0.0, 1.0, 1.0)
"""What edges count beyond their coordinates where widths are x2 - x1 + 1: in the IoU target of PAA's RPN."""


class RegionLoss(nn.Module):
    """Cross entropy of the objectness and L1 of the deltas, over `samples` priors of each picture.

    With n the number of priors to draw, `samples` times pictures, and u the IoU (x2 - x1 + 1 pixels wide) of
    the predicted box of a positive, without gradient, the terms are

    * "region_objectness": sum of the cross entropy over the sample / n;
    * "region_box": sum over sampled positives of the L1 distance of the four deltas / n, weighted by u where
      the network predicts the IoU;
    * "region_iou", only there: mean over sampled positives of the cross entropy against u.

    Without positives the last two are 0 and keep the graph. Pictures are counted on each rank by itself, as
    published.

    Args:
        samples: priors drawn of each picture.
        positive_fraction: greatest share of positives among them.

    Raises:
        ValueError: an argument is out of range; in the call, a soft assignment.

    Source: Ren et al. 2015 (Faster R-CNN), eq. 1; Detectron2 for the L1; kkhoot/PAA_Faster-RCNN for the IoU.
    """

    def __init__(self, *, samples: int = 256, positive_fraction: float = 0.5) -> None:
        super().__init__()
        if samples < 1 or not 0 < positive_fraction <= 1:
            raise ValueError(
                "RegionLoss: expected samples of 1 or more and positive_fraction in (0, 1], got "
                f"{samples=}, {positive_fraction=}"
            )
        self.samples, self.positive_fraction = samples, positive_fraction

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: BoxCoder,
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms by name; their sum is the loss.

        Args:
            priors: the priors of the predictions.
            targets: the objects the assignment's pairs index.
            predictions: one objectness logit and four deltas per prior, and IoU logits or None.
            assignment: who learns what; hard.
            coder: what the deltas mean.

        Raises:
            ValueError: the assignment is soft, or the coder has no deltas of its own for a box.
        """
        if not isinstance(coder, DeltaCoder):
            raise ValueError(f"RegionLoss: expected a DeltaCoder, got {type(coder).__name__}")
        _refuse_soft(assignment)
        index = assignment.gt_index()
        sample = balanced_sample(index >= 0, index == -1, self.samples, self.positive_fraction)
        count = max(self.samples * len(index), 1)
        image, prior = sample.positive
        objects = predictions.logits[image, prior, 0]
        background = predictions.logits[sample.negative[0], sample.negative[1], 0]
        deltas, gts = predictions.deltas[image, prior], targets.boxes[index[image, prior]]
        distance = (deltas - coder.encode_xyxy(gts, priors, prior)).abs().sum(1)
        surprise = bce(objects, torch.ones_like(objects)).sum()
        surprise = surprise + bce(background, torch.zeros_like(background)).sum()
        if predictions.quality is None:
            return {"region_objectness": surprise / count, "region_box": distance.sum() / count}
        shift = gts.new_tensor(_LAST_PIXEL)
        iou = pair_iou(coder.decode_xyxy(deltas.detach(), priors, prior) + shift, gts + shift)
        return {
            "region_objectness": surprise / count,
            "region_box": (iou * distance).sum() / count,
            "region_iou": bce(predictions.quality[image, prior], iou).sum() / max(len(iou), 1),
        }

    def extra_repr(self) -> str:
        return f"samples={self.samples}, positive_fraction={self.positive_fraction}"


def _refuse_soft(assignment: Assignment) -> None:
    soft = (assignment.weight != 1) | (assignment.score != 1) | (assignment.neg_weight != 0)
    if bool(soft.any()):
        raise ValueError(
            "RegionLoss: expected a hard assignment, got weights or class targets between 0 and 1; take an "
            "assigner such as PAA, MaxIoU or ATSS"
        )
