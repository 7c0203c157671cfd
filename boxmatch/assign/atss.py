"""ATSS: each box sets its own threshold from the priors around it."""

from jaxtyping import Float
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..losses.box_similarity import SimilarityKind, box_similarity, check_similarity
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .adaptive import assign_above_threshold, check_options, mean_and_std
from .base import Assigner
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
        similarity: SimilarityKind = "iou",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        check_options(topk, inside_margin)
        check_similarity(similarity, "similarity")
        self.topk = topk
        self.inside_margin = inside_margin
        self.similarity: SimilarityKind = similarity

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        def judge(part: Targets, pairs: Pairs) -> tuple[Float[Tensor, "G K"], Float[Tensor, "G"]]:
            boxes, gts = take_boxes(priors.boxes, pairs.prior), take_boxes(part.boxes, pairs.gt)
            if self.similarity == "iou":
                score = pair_iou(boxes, gts)
            else:
                score = box_similarity(boxes, gts, self.similarity)
            score = score.view(len(part), priors.count_nearest(self.topk, whole_cells=True))
            mean, std = mean_and_std(score)
            return score, (mean + std).float()

        return assign_above_threshold(
            priors, targets, judge, story, topk=self.topk, inside_margin=self.inside_margin
        )

    def extra_repr(self) -> str:
        return f"topk={self.topk}, inside_margin={self.inside_margin}, similarity={self.similarity!r}"
