"""Nearby grid: the anchors of the 3 × 3 cells around the box's centre."""

from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .grid import GridAssigner
from .shape_match import shape_candidates
from .story import Story


class NearbyGrid(GridAssigner):
    """3 × 3 cells around the centre → shape IoU → at least the threshold → greatest IoU owns the prior.

    This holds on every level. At the border the block is clipped to the grid. The IoU compares shapes only,
    so the nine cells score alike.

    Source: `nearby_grid` of zh320/simple-yolo-pytorch (Apache-2.0, commit 0b61f0a), core/loss.py. There the
    box of lowest IoU ends up with most contested priors, with the classes of all rivals; here the greatest
    owns them.
    """

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        candidates, iou = shape_candidates(
            priors, targets, reach=1, threshold=self.match_iou_thres, story=story
        )
        return self.resolve(candidates, iou, priors, targets, story)
