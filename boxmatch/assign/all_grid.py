"""All grid: every anchor that overlaps the box enough, wherever it is."""

import torch

from ..priors import Priors
from ..spatial.overlap_runs import overlap_runs
from ..structures import Assignment, Predictions, Targets
from .grid import GridAssigner, grid_index, union_eps
from .story import Story


class AllGrid(GridAssigner):
    """Overlapping anchors of all cells → IoU → more than the threshold → greatest IoU owns the prior.

    Anchors are not clipped to the picture. The comparison is strict here and only here, as in the reference.

    Source: `all_grid` of zh320/simple-yolo-pytorch (Apache-2.0, commit 0b61f0a), core/loss.py. There the
    greatest IoU wins because it is written last, which holds on one CPU thread only; here it wins on every
    device.
    """

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        candidates, iou = overlap_runs(
            grid_index(priors), targets.boxes, self.match_iou_thres, union_eps(priors)
        )
        # The query lists what passes; anchors below the threshold are never looked at.
        order = (candidates.gt * len(priors) + candidates.prior).argsort() if story.active else None
        if order is not None:
            story.candidates(candidates.select(order), iou[order], torch.full_like(iou, self.match_iou_thres))
        return self.resolve(candidates, iou, priors, targets, story)
