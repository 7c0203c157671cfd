"""Single grid: the anchors of the one cell that holds the box's centre."""

from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .grid import GridAssigner
from .shape_match import shape_candidates
from .story import Story


class SingleGrid(GridAssigner):
    """Cell of the centre → shape IoU → at least the threshold → greatest IoU owns the prior.

    A box may match several anchors of several levels, or none: there is no rescue.

    Source: `single_grid` of zh320/simple-yolo-pytorch (Apache-2.0, commit 0b61f0a), core/loss.py. There a
    later box overwrites an earlier one on a shared prior and their classes add up; here `filter_by_max_iou`
    holds for this method as for the others. A centre on the far border belongs to the last cell (there:
    IndexError).
    """

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        candidates, iou = shape_candidates(
            priors, targets, reach=0, threshold=self.match_iou_thres, story=story
        )
        return self.resolve(candidates, iou, priors, targets, story)
