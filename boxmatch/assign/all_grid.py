"""All grid: every anchor that overlaps the box enough, wherever it is."""

from ..priors import Priors
from ..spatial.overlap_runs import overlap_runs
from ..structures import Assignment, Predictions, Targets
from .grid import GridAssigner, grid_index, union_eps


class AllGrid(GridAssigner):
    """Overlapping anchors of all cells → IoU → more than the threshold → greatest IoU owns the prior.

    Anchors are not clipped to the picture. The comparison is strict here and only here, as in the reference.

    Source: `all_grid` of zh320/simple-yolo-pytorch (Apache-2.0, commit 0b61f0a), core/loss.py. There the
    greatest IoU wins because it is written last, which holds on one CPU thread only; here it wins on every
    device.
    """

    def assign(self, priors: Priors, targets: Targets, predictions: Predictions | None) -> Assignment:
        candidates, iou = overlap_runs(
            grid_index(priors), targets.boxes, self.match_iou_thres, union_eps(priors)
        )
        return self.resolve(candidates, iou, priors, targets)
