"""Max-IoU: two thresholds on the IoU with the prior's best box."""

from dataclasses import replace
from typing import get_args

from ..priors import Priors
from ..structures import Assignment, Predictions, Targets
from .base import Assigner
from .iou_match import LowQuality, iou_matches
from .measures import Similarity
from .similarity import SimilarityName, as_similarity
from .story import Story


class MaxIoU(Assigner):
    """Overlapping → IoU → the prior's best box, from `positive` on, and every box's best → greatest IoU.

    A prior learns the box it overlaps most if their IoU is at least `positive`; it is background if that is
    less than `negative`, and takes no part in between. `low_quality` is about the best priors of each box,
    however little they overlap it; see `iou_matches`. Published settings have presets: `retinanet`, `rpn` and
    `rcnn`.

    Args:
        positive: IoU from which on a prior learns its best box.
        negative: IoU below which it is background; or (low, high), and priors below low take no part either.
        min_positive: IoU that the best prior of a box must have to be rescued.
        low_quality: whether the priors that a box overlaps most learn it whatever their IoU ("reassign",
            mmdetection), learn their own best box ("keep_argmax", torchvision and detectron2), or are treated
            as any ("off").
        similarity: what takes the place of the IoU, by name or as a measure with constants of its own.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range.

    Source: Ren et al. 2015 (Faster R-CNN), sec. 3.1.2; Lin et al. 2017 (RetinaNet), sec. 4. In the published
    codes a box that overlaps no prior makes every prior positive that overlaps no box; here an IoU of 0
    rescues nobody.
    """

    def __init__(
        self,
        positive: float = 0.5,
        negative: float | tuple[float, float] = 0.4,
        *,
        min_positive: float = 0.0,
        low_quality: LowQuality = "reassign",
        similarity: SimilarityName | Similarity = "iou",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        low, high = negative if isinstance(negative, tuple) else (0.0, negative)
        if not (0 <= low < high <= positive <= 1 and 0 <= min_positive <= 1):
            raise ValueError(
                "expected 0 <= low < high <= positive <= 1, with negative = high or (low, high), and "
                f"min_positive in [0, 1], got {positive=}, {negative=}, {min_positive=}"
            )
        if low_quality not in get_args(LowQuality):
            raise ValueError(f"expected low_quality in {get_args(LowQuality)}, got {low_quality!r}")
        self.positive = positive
        self.negative = negative
        self.min_positive = min_positive
        self.low_quality: LowQuality = low_quality
        self.similarity = as_similarity(similarity)

    @classmethod
    def retinanet(cls) -> "MaxIoU":
        """The rule of RetinaNet."""
        return cls(0.5, 0.4)

    @classmethod
    def rpn(cls) -> "MaxIoU":
        """The rule of the region proposal network in Faster R-CNN."""
        return cls(0.7, 0.3, min_positive=0.3)

    @classmethod
    def rcnn(cls) -> "MaxIoU":
        """The rule of the second stage of Faster R-CNN, for proposals."""
        return cls(0.5, 0.5, low_quality="off")

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        matches = iou_matches(
            priors,
            targets,
            self.positive,
            self.negative,
            low_quality=self.low_quality,
            min_positive=self.min_positive,
            similarity=self.similarity,
            story=story,
        )
        hard = Assignment.hard(
            matches.pairs, targets, len(priors), levels=priors.levels, candidates=matches.candidates
        )
        return replace(hard, ignored=matches.ignored)

    def extra_repr(self) -> str:
        return (
            f"positive={self.positive}, negative={self.negative}, min_positive={self.min_positive}, "
            f"low_quality={self.low_quality!r}, similarity={self.similarity}"
        )
