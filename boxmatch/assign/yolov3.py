"""YOLOv3: the one anchor whose shape fits a box best, in the cell that holds its centre."""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..boxes import area, box_sizes, shape_iou
from ..priors import Priors
from ..segments import first_by_priority
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .prediction_overlap import predictions_over_boxes
from .story import Story
from .take import places

Collision = Literal["last", "largest", "smallest", "best_iou"]
ClassCollision = Literal["union", "overwrite"]


class YOLOv3(Assigner):
    """Anchors of the centre's cell on all levels → shape IoU → the one best → last box owns the prior.

    No IoU is too small: every box finds an anchor, of whatever level. Equal IoUs go to the anchor that comes
    first in the lists given to `AnchorGrid`, the smallest of the finest level in the usual order. A centre on
    the border between two cells belongs to the second; on the far border or outside, to the nearest cell.

    Two boxes may want one prior. One owns it: its pair has weight 1, and `gt_index()` names it. Under
    "union" the prior learns the classes of all: the pairs of the others stay, with weight 0 and score 1. A
    loss reads the box from the pair with the weight, and each class target as the highest score among the
    prior's pairs of that class. One that multiplies the class term by the weight learns the owner's class
    only.

    A prior without a box whose predicted box has an IoU of more than `ignore_iou` with any box of its image,
    whatever the level, takes no part in the loss: it is right, though not responsible.

    Args:
        ignore_iou: in (0, 1]; 1 ignores nothing. `ignore_thresh` in the configurations of the original.
        collision: which box owns a prior that several want: the "last" row of the targets; the "largest" or
            the "smallest"; or the one of "best_iou", that of the shapes. Equal ones go to the lowest row.
        class_collision: whether the prior learns the "union" of their classes, or the owner's class alone
            ("overwrite").
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes, priors on no grid.

    Source: Redmon & Farhadi 2018 (YOLOv3), sec. 2.1; pjreddie/darknet, src/yolo_layer.c;
    DeNA/PyTorch_YOLOv3 (commit 1a3cd6e), models/yolo_layer.py. Paper and codes differ: the paper ignores
    anchors that overlap a box by more than 0.5, the codes predictions that do by more than 0.7, as here.
    """

    uses_predictions: ClassVar[bool] = True

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """The order of the boxes matters where the last one wins, as in the original."""
        if self.collision != "last":
            return {}
        return {
            "order_of_boxes": "the last of several boxes owns a prior",
            "duplicates": "the last copy wins",
        }

    def __init__(
        self,
        *,
        ignore_iou: float = 0.7,
        collision: Collision = "last",
        class_collision: ClassCollision = "union",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not 0 < ignore_iou <= 1:
            raise ValueError(f"expected ignore_iou in (0, 1], got {ignore_iou}")
        if collision not in get_args(Collision):
            raise ValueError(f"expected collision in {get_args(Collision)}, got {collision!r}")
        if class_collision not in get_args(ClassCollision):
            raise ValueError(
                f"expected class_collision in {get_args(ClassCollision)}, got {class_collision!r}"
            )
        self.ignore_iou = ignore_iou
        self.collision: Collision = collision
        self.class_collision: ClassCollision = class_collision

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        cells = priors.cells(targets)
        iou = _shape_ious(priors, targets, cells)
        best = _first_maximum(iou).flatten()
        story.candidates(cells, iou.flatten())
        story.keep(best, otherwise="not_topk")
        wanted, iou = cells.select(best), iou.flatten()[best].float()
        owned = self._owned(wanted, iou, targets, len(priors))
        pairs, weight = wanted, owned.float()
        if self.class_collision == "overwrite":
            pairs, weight = wanted.select(owned), weight[owned]
        ignored = predictions_over_boxes("YOLOv3", priors, targets, predictions, self.ignore_iou)
        ignored[targets.image[pairs.gt], pairs.prior] = False
        return Assignment(
            pairs=pairs,
            weight=weight,
            score=torch.ones_like(weight),
            neg_weight=torch.zeros_like(weight),
            ignored=ignored,
            targets=targets,
            levels=priors.levels,
            candidates=wanted,
        )

    def _owned(
        self, pairs: Pairs, iou: Float[Tensor, "N"], targets: Targets, prior_count: int
    ) -> Bool[Tensor, "N"]:
        """The pairs whose box owns the prior."""
        size = area(targets.boxes)[pairs.gt]
        score = {"last": pairs.gt.float(), "largest": size, "smallest": -size, "best_iou": iou}[
            self.collision
        ]
        place = places(pairs, targets, prior_count)
        return first_by_priority(score, place, targets.batch_size * prior_count, pairs.gt)

    def extra_repr(self) -> str:
        return (
            f"ignore_iou={self.ignore_iou}, collision={self.collision!r}, "
            f"class_collision={self.class_collision!r}"
        )


def _shape_ious(priors: Priors, targets: Targets, cells: Pairs) -> Float64[Tensor, "G A"]:
    """Shape IoU of each box with all anchors of its cells: one cell per level, so as many for every box.

    In float64, which tells the best two anchors apart however alike they are.
    """
    anchor_wh = priors.wh.index_select(0, cells.prior).view(
        len(targets), sum(level.anchors for level in priors.levels), 2
    )
    return shape_iou(box_sizes(targets.boxes.double())[:, None], anchor_wh.double())


def _first_maximum(values: Float64[Tensor, "G A"]) -> Bool[Tensor, "G A"]:
    """Mask of the greatest entry of each row, the first of equal ones."""
    greatest = values == values.amax(1, keepdim=True)
    return greatest & (greatest.cumsum(1) == 1)
