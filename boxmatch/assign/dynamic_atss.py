"""Dynamic ATSS: the threshold of a box moves with what the network predicts around it."""

from typing import ClassVar, Literal, get_args

from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .adaptive import assign_above_threshold, check_options, mean_and_std
from .base import Assigner
from .story import Story
from .take import places, predicted_boxes

Threshold = Literal["sum_of_stds", "std_of_sum"]


class DynamicATSS(Assigner):
    """Nearest cells per level → IoU of prior + IoU of prediction → mean + std, centre inside → highest score.

    Args:
        topk: cells per level whose anchors are candidates.
        threshold: what is added to the mean of the scores: the sum of the standard deviations of the two IoUs
            ("sum_of_stds", the published code), or the standard deviation of their sum ("std_of_sum"), which
            is never larger.
        inside_margin: the prior's centre must lie more than this many pixels inside the box; see `ATSS`.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Zhang et al. 2022 (Dynamic ATSS), ZTX-100/DLA-Combined-IoUs.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: int = 9,
        threshold: Threshold = "sum_of_stds",
        inside_margin: float = 0.0,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        check_options(topk, inside_margin)
        if threshold not in get_args(Threshold):
            raise ValueError(f"expected threshold in {get_args(Threshold)}, got {threshold!r}")
        self.topk = topk
        self.threshold: Threshold = threshold
        self.inside_margin = inside_margin

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        count = priors.count_nearest(self.topk, whole_cells=True)

        def judge(part: Targets, pairs: Pairs) -> tuple[Tensor, Tensor]:
            predicted = predicted_boxes(predictions, places(pairs, part, len(priors)), "DynamicATSS")
            gts = take_boxes(part.boxes, pairs.gt)
            prior_iou = pair_iou(take_boxes(priors.boxes, pairs.prior), gts).view(len(part), count)
            predicted_iou = pair_iou(predicted, gts).view(len(part), count)
            score = prior_iou + predicted_iou
            if self.threshold == "std_of_sum":
                mean, std = mean_and_std(score)
                return score, (mean + std).float()
            (mean, std), (predicted_mean, predicted_std) = (
                mean_and_std(prior_iou),
                mean_and_std(predicted_iou),
            )
            return score, (mean + predicted_mean + std + predicted_std).float()

        return assign_above_threshold(
            priors, targets, judge, story, topk=self.topk, inside_margin=self.inside_margin
        )

    def extra_repr(self) -> str:
        return f"topk={self.topk}, threshold={self.threshold!r}, inside_margin={self.inside_margin}"
