"""All grid: every anchor that overlaps the box enough, wherever it is."""

from ..boxes import area, pair_intersection
from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .grid import GridAssigner, union_eps


class AllGrid(GridAssigner):
    """Overlapping anchors of all cells → IoU → more than the threshold → greatest IoU owns the prior.

    Anchors are not clipped to the picture. The comparison is strict here and only here, as in the reference.

    Source: `all_grid` of zh320/simple-yolo-pytorch (Apache-2.0, commit 0b61f0a), core/loss.py.
    """

    def assign(self, priors: Priors, targets: Targets, predictions: Predictions | None) -> Assignment:
        # The added eps only lowers the IoU: the plain overlap query lists all candidates and a few more.
        pairs = priors.overlapping(targets, self.match_iou_thres)
        gt, prior = targets.boxes[pairs.gt], priors.boxes[pairs.prior]
        inter = pair_intersection(gt, prior)
        iou = inter / (area(gt) + area(prior) - inter + union_eps(priors)[priors.level[pairs.prior]])
        keep = iou > self.match_iou_thres
        return self.resolve(pairs.select(keep), iou[keep], priors, targets)
