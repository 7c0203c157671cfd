"""Grid Max-IoU: Max-IoU in which a box may only choose among the anchors of the cell of its centre."""

from dataclasses import replace

import torch

from ..boxes import pair_iou, take_boxes
from ..priors import Priors
from ..segments import segment_max
from ..structures import Assignment, Predictions, Targets
from .base import Assigner
from .pick import owners
from .story import Story
from .take import places


class GridMaxIoU(Assigner):
    """Cells of the centre, all levels → IoU → more than `positive`, and every box's best → greatest IoU.

    The IoU is that of real positions, so an anchor of the right shape in the wrong place counts less than in
    YOLOv3's own rule, and several levels may learn one box. The best anchors of a box among those of its
    cells learn it whatever their IoU, even if another box asks for them with a greater one; an anchor that is
    the best of several boxes goes to the one it overlaps most, of equal ones the lowest row. An anchor
    anywhere that overlaps a box by more than `negative` and learns none takes no part.

    Args:
        positive: IoU above which an anchor of the box's cells learns it.
        negative: IoU up to which an anchor that learns no box is background.
        min_positive: IoU that the best anchor of a box must exceed; 0 for any overlap.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, priors on no grid.

    Source: `GridAssigner` of mmdetection (Apache-2.0), the rule of its YOLOv3. There an anchor in the cell of
    one box may also learn another box that it overlaps more, wherever that one's centre lies; here a box's
    anchors are those of its own cells, as the documentation there has it.
    """

    def __init__(
        self,
        positive: float = 0.5,
        negative: float = 0.5,
        *,
        min_positive: float = 0.0,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (0 <= negative <= positive <= 1 and 0 <= min_positive <= 1):
            raise ValueError(
                "expected 0 <= negative <= positive <= 1 and min_positive in [0, 1], got "
                f"{positive=}, {negative=}, {min_positive=}"
            )
        self.positive = positive
        self.negative = negative
        self.min_positive = min_positive

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        pairs = priors.cells(targets)
        iou = pair_iou(take_boxes(targets.boxes, pairs.gt), take_boxes(priors.boxes, pairs.prior))
        best = segment_max(iou, pairs.gt, len(targets))
        best.masked_fill_(best <= self.min_positive, torch.inf)
        rescuing = iou == best.index_select(0, pairs.gt)
        place = places(pairs, targets, len(priors))
        rescued = torch.zeros(targets.batch_size * len(priors), dtype=torch.bool, device=place.device)
        rescued.index_fill_(0, place[rescuing], True)
        # A rescued anchor is left to its rescuers. The greatest IoU decides among these, or among the others.
        asked = rescuing | ((iou > self.positive) & ~rescued.index_select(0, place))
        candidates, candidate_iou = pairs.select(asked), iou[asked]
        kept = candidates.select(owners(candidates, candidate_iou, targets, len(priors)))
        near = priors.overlapping(targets, self.negative, strict=True)
        ignored = torch.zeros_like(rescued).index_fill_(0, places(near, targets, len(priors)), True)
        ignored.index_fill_(0, places(kept, targets, len(priors)), False)
        story.candidates(pairs, iou, torch.full_like(iou, self.positive))
        story.keep(rescuing | (iou > self.positive) | ignored[place], otherwise="below_threshold")
        hard = Assignment.hard(kept, targets, len(priors), levels=priors.levels, candidates=candidates)
        return replace(hard, ignored=ignored.view(targets.batch_size, len(priors)))

    def extra_repr(self) -> str:
        return f"positive={self.positive}, negative={self.negative}, min_positive={self.min_positive}"
