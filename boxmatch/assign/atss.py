"""ATSS: each box sets its own threshold from the priors around it."""

from torch import Tensor

from ..boxes import take_boxes
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .adaptive import assign_above_threshold, check_options, mean_and_std
from .base import Assigner
from .measures import Similarity
from .similarity import SimilarityName, as_similarity
from .story import Story


class ATSS(Assigner):
    """Nearest `topk` cells per level → IoU of the prior → at least mean + std, centre inside → highest IoU.

    Mean and standard deviation (unbiased) are those of all candidates of a box, all levels together. A box
    may get no pair; a prior that no box keeps is background.

    Args:
        topk: cells per level whose anchors are candidates.
        inside_margin: the prior's centre must lie more than this many pixels inside the box. 0, the default,
            is the rule of the paper. The published code asks for 0.01 px inside edges that count inclusively;
            to reproduce it, pass `INCLUSIVE_INSIDE_MARGIN` with boxes (x1, y1, x2 + 1, y2 + 1) and priors of
            `AnchorGrid(..., shift=0.5)`.
        similarity: how priors and boxes are compared.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range.

    Source: Zhang et al. 2020 (ATSS), algorithm 1; sfzhang15/ATSS.
    """

    def __init__(
        self,
        *,
        topk: int = 9,
        inside_margin: float = 0.0,
        similarity: SimilarityName | Similarity = "iou",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        check_options(topk, inside_margin)
        self.topk = topk
        self.inside_margin = inside_margin
        self.similarity = as_similarity(similarity)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        count = priors.count_nearest(self.topk, whole_cells=True)

        def judge(part: Targets, pairs: Pairs) -> tuple[Tensor, Tensor]:
            score = self.similarity(take_boxes(part.boxes, pairs.gt), take_boxes(priors.boxes, pairs.prior))
            score = score.view(len(part), count)
            mean, std = mean_and_std(score)
            return score, (mean + std).float()

        return assign_above_threshold(
            priors, targets, judge, story, topk=self.topk, inside_margin=self.inside_margin
        )

    def extra_repr(self) -> str:
        return f"topk={self.topk}, inside_margin={self.inside_margin}, similarity={self.similarity}"
