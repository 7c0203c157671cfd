"""Loss of the simple-YOLO family: objectness of every prior, box and class of the positives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..boxes import cxcywh_to_xyxy
from ..coders import GridCoder
from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .box_similarity import SimilarityKind, box_similarity, check_similarity
from .functional import check_gamma, focal_loss
from .reduce import mean_over_ranks, rank_count

ConfidenceTarget = Literal["iou", "constant"]
ObjectnessAverage = Literal["cells", "positives"]
BoxAverage = Literal["layer", "all"]


@dataclass(frozen=True)
class _Counts:
    """What the sums are divided by, means over ranks; positives count by their weight."""

    cells: Tensor  # of each level, (L,)
    positives: Tensor  # of each level, (L,)
    all_positives: Tensor  # at least 1 over all ranks, ()


class YOLOLoss(nn.Module):
    """Focal objectness over all priors, box and class loss over the positives, summed over the levels.

    With q the similarity of a positive's decoded box to its object, level i contributes

        lambda_scales[i] · (lambda_obj · L_obj + lambda_coord · L_box + lambda_class · L_cls)

    * L_obj: mean over all priors of the focal loss against t; t is q (held in [0, 1], without gradient) or 1
      for positives and 0 elsewhere. Ignored priors take no part and are not counted.
    * L_box: mean over the positives of 1 - q.
    * L_cls: mean over positives and classes of the focal loss against the class; no such term with a single
      class.

    The defaults are the shipped VOC settings of the original. Boxes are compared in units of the side
    sqrt(width · height) of the input: for square input the original's normalised coordinates, for others free
    of their distortion. A level without positives has box and class loss 0 (the original: NaN). Everything is
    float32 outside autocast. In training mode the averages are taken over all ranks of a distributed run.

    Args:
        iou_loss_type: similarity q, see `box_similarity`. The original's "ciou" and "siou" are our
            "ciou_lite" and "siou_lite".
        focal_loss_gamma: focal exponent of objectness and class, 0 or at least 1.
        assign_conf_method: objectness target t of a positive: "iou", its similarity; "constant", the score
            that the assigner gave it, which is 1 for hard assigners.
        lambda_obj: weight of the objectness term.
        lambda_coord: weight of the box term.
        lambda_noobj: weight of the extra no-object term, see `use_noobj_loss`.
        lambda_scales: weight of each level, smallest stride first.
        use_noobj_loss: add lambda_noobj · mean of (1 - t) · focal loss to the objectness of each level. Our
            reading of an option that crashes in the original.
        lambda_class: weight of the class term; 1 in the original.
        class_focal_gamma: focal exponent of the class term; None takes focal_loss_gamma, as the original
            does.
        sum_classes: sum the class loss of a positive over the classes; the original takes their mean, so that
            the term fades as classes are added.
        objectness_average: "cells" as published: each level's mean over its priors, so few positives weigh
            little. "positives": the sum over all priors divided by the number of positives of all levels (at
            least 1).
        box_average: what the box and class terms are averaged over. "layer" as published: over each level's
            positives, so that a positive of a level with few of them weighs more. "all": over the positives
            of all levels.

    Raises:
        ValueError: an option is unknown or out of range.

    Source: zh320/simple-yolo-pytorch, `core/loss.py`; "positives" after Lin et al. 2017 (RetinaNet),
    sec. 4.1.
    """

    def __init__(
        self,
        *,
        iou_loss_type: SimilarityKind = "ciou_lite",
        focal_loss_gamma: float = 3.5,
        assign_conf_method: ConfidenceTarget = "iou",
        lambda_obj: float = 1.0,
        lambda_coord: float = 0.1,
        lambda_noobj: float = 0.5,
        lambda_scales: Sequence[float] = (1.0, 1.0, 1.0),
        use_noobj_loss: bool = False,
        lambda_class: float = 1.0,
        class_focal_gamma: float | None = None,
        sum_classes: bool = False,
        objectness_average: ObjectnessAverage = "cells",
        box_average: BoxAverage = "layer",
    ) -> None:
        super().__init__()
        check_similarity(iou_loss_type, "iou_loss_type")
        check_gamma(focal_loss_gamma, "focal_loss_gamma")
        if class_focal_gamma is not None:
            check_gamma(class_focal_gamma, "class_focal_gamma")
        for name, value, known in (
            ("assign_conf_method", assign_conf_method, get_args(ConfidenceTarget)),
            ("objectness_average", objectness_average, get_args(ObjectnessAverage)),
            ("box_average", box_average, get_args(BoxAverage)),
        ):
            if value not in known:
                raise ValueError(f"YOLOLoss: expected {name} in {known}, got {value!r}")
        weights = [lambda_obj, lambda_coord, lambda_noobj, lambda_class, *lambda_scales]
        if not all(0 <= weight < float("inf") for weight in weights):
            raise ValueError(
                f"YOLOLoss: expected finite lambda_* of 0 or more, got {lambda_obj=}, {lambda_coord=}, "
                f"{lambda_noobj=}, {lambda_class=}, {lambda_scales=}"
            )
        self.iou_loss_type = iou_loss_type
        self.focal_loss_gamma = focal_loss_gamma
        self.assign_conf_method = assign_conf_method
        self.lambda_obj = lambda_obj
        self.lambda_coord = lambda_coord
        self.lambda_noobj = lambda_noobj
        self.lambda_scales = tuple(lambda_scales)
        self.use_noobj_loss = use_noobj_loss
        self.lambda_class = lambda_class
        self.class_focal_gamma = class_focal_gamma
        self.sum_classes = sum_classes
        self.objectness_average = objectness_average
        self.box_average = box_average

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: GridCoder,
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms "objectness", "box" and "class"; their sum is the loss.

        Args:
            priors: the priors of the predictions, on levels.
            targets: the objects the assignment's pairs index.
            predictions: class logits, deltas (tx, ty, tw, th) and objectness logits (`quality`). Boxes are
                decoded here from the deltas, those of the positives only.
            assignment: who learns what. Pairs are weighted by `weight` in the box and class terms and in the
                averages; `score` is the objectness target under "constant". The class target is always 1: in
                this family the class is asked given that there is an object.
            coder: decodes the deltas.

        Raises:
            ValueError: predictions have no quality, or the number of levels differs from that of
                lambda_scales.
        """
        if predictions.quality is None:
            raise ValueError("YOLOLoss: expected objectness logits in predictions.quality, got None")
        if len(priors.levels) != len(self.lambda_scales):
            raise ValueError(
                f"YOLOLoss: expected one of lambda_scales per level, got {self.lambda_scales} for "
                f"{len(priors.levels)} levels"
            )
        with torch.autocast(predictions.deltas.device.type, enabled=False):
            counts = self._counts(priors, assignment)
            share = self._share_of_positives(priors, assignment, counts)
            similarity = self._similarity(priors, targets, predictions, assignment, coder)
            return {
                "objectness": self._objectness(
                    priors, predictions.quality, similarity.detach(), assignment, counts
                ),
                "box": self.lambda_coord * (share * (1 - similarity)).sum(),
                "class": self._classification(targets, predictions, assignment, share),
            }

    def _counts(self, priors: Priors, assignment: Assignment) -> _Counts:
        """Priors that take part and positives, per level and summed over images."""
        levels = len(priors.levels)
        active = (~assignment.ignored).sum(0).float()
        cells = torch.stack([part.sum() for part in active.split([len(level) for level in priors.levels])])
        level = priors.level[assignment.pairs.prior]
        positives = cells.new_zeros(levels).index_add(0, level, assignment.weight)
        counts = torch.cat((cells, positives))
        # Not in evaluation: ranks may hold different numbers of batches, and one would wait for ever.
        ranks = rank_count() if self.training else 1
        cells, positives = (counts if ranks == 1 else mean_over_ranks(counts)).split(levels)
        return _Counts(cells, positives, positives.sum().clamp(min=1 / ranks))

    def _share_of_positives(self, priors: Priors, assignment: Assignment, counts: _Counts) -> Tensor:
        """What each pair's loss is multiplied by so that the sum is the weighted average, (N,)."""
        scales = counts.positives.new_tensor(self.lambda_scales)
        divisor = counts.positives if self.box_average == "layer" else counts.positives.sum()
        # A level without positives, or with weights of 0, is divided by something: no pair of it counts.
        share = scales / divisor.clamp(min=1e-9)
        return share[priors.level[assignment.pairs.prior]] * assignment.weight

    def _similarity(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
        assignment: Assignment,
        coder: GridCoder,
    ) -> Tensor:
        """Similarity of each positive's box to its object, (N,)."""
        deltas = _rows(predictions.deltas, assignment)
        boxes = cxcywh_to_xyxy(coder.decode(deltas, priors, assignment.pairs.prior))
        finest = priors.levels[0]
        side = (finest.width * finest.height) ** 0.5 * finest.stride
        return box_similarity(boxes / side, targets.boxes[assignment.pairs.gt] / side, self.iou_loss_type)

    def _objectness(
        self, priors: Priors, logits: Tensor, similarity: Tensor, assignment: Assignment, counts: _Counts
    ) -> Tensor:
        target = similarity.clamp(0, 1) if self.assign_conf_method == "iou" else assignment.score
        # A prior with several boxes (soft assigners) takes the best; a plain store would leave it to chance.
        targets = target.new_zeros(logits.numel()).scatter_reduce(0, _place(assignment), target, "amax")
        targets = targets.view_as(logits)

        loss = focal_loss(logits.float(), targets, self.focal_loss_gamma)
        if self.use_noobj_loss:
            loss = loss * (self.lambda_obj + self.lambda_noobj * (1 - targets))
        else:
            loss = loss * self.lambda_obj
        loss = loss.masked_fill(assignment.ignored, 0).sum(0)  # (P,)
        # A level without a cell that takes part is divided by 1: its sum is 0.
        divisor = counts.cells.clamp(min=1) if self.objectness_average == "cells" else counts.all_positives
        share = counts.cells.new_tensor(self.lambda_scales) / divisor
        return (loss * share[priors.level]).sum()

    def _classification(
        self, targets: Targets, predictions: Predictions, assignment: Assignment, share: Tensor
    ) -> Tensor:
        if predictions.logits.shape[2] == 1:
            return predictions.logits[:0].sum()  # 0, and the logits stay in the graph
        logits = _rows(predictions.logits, assignment).float()  # (N, C)
        labels = targets.labels[assignment.pairs.gt].unsqueeze(1)
        one_hot = torch.zeros_like(logits).scatter(1, labels, 1.0)
        gamma = self.focal_loss_gamma if self.class_focal_gamma is None else self.class_focal_gamma
        loss = focal_loss(logits, one_hot, gamma)
        loss = loss.sum(1) if self.sum_classes else loss.mean(1)
        return self.lambda_class * (share * loss).sum()


def _place(assignment: Assignment) -> Int64[Tensor, "N"]:
    """Position of each pair's prior in a (B, P) map laid out as one row."""
    return assignment.image * assignment.ignored.shape[1] + assignment.pairs.prior


def _rows(values: Float[Tensor, "B P K"], assignment: Assignment) -> Float[Tensor, "N K"]:
    """What each pair's prior says in its image; several times faster than indexing with two tensors."""
    return values.flatten(0, 1).index_select(0, _place(assignment))
