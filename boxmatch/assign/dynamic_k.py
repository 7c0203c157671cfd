"""The frame of the methods with a dynamic k: a cost, as many of the cheapest as predictions deserve."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ..boxes import pair_iou, take_boxes
from ..priors import Priors
from ..segments import concatenated_ranges, segment_topk, segment_topk_sum
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .background_cost import BackgroundCost
from .base import Assigner
from .contested import Valued, once, resolve_among_candidates, select
from .piecewise import piecewise
from .story import Story
from .take import by_column, places, predicted_boxes


def dynamic_k(
    overlap: Float[Tensor, "N"], gt: Int64[Tensor, "N"], count: int, topk: int
) -> Int64[Tensor, "G"]:
    """How many priors each box keeps: the sum of its `topk` greatest overlaps, rounded down, at least 1.

    Args:
        overlap: IoU of each pair.
        gt: ascending.
        count: number of boxes.
        topk: how many overlaps are added up.

    Source: Ge et al. 2021 (OTA, sec. 3.3; SimOTA in YOLOX).
    """
    # In float64, where the order of the terms does not matter: a sum may be just a whole number.
    return segment_topk_sum(overlap, gt, count, topk).floor().long().clamp(min=1)


class Scene(NamedTuple):
    """What the cost of a pair is worked out from."""

    priors: Priors
    predictions: Predictions
    background: BackgroundCost


class Listing(NamedTuple):
    """The candidates of a rule: how many each box may bring, and the pairs of some rows of the targets."""

    lengths: Int64[Tensor, "G"]
    pairs: Callable[[Targets], Pairs]


class DynamicKAssigner(Assigner):
    """Base of SimOTA and DynamicSoftLabel.

    Each box adds up the IoU of its `topk` best predictions; the sum, rounded down and at least 1, is its k.
    It keeps the k pairs of lowest cost. A prior that several boxes keep goes to the box of lowest cost of all
    that it is a candidate of, also to one that did not keep it. Equal costs go to the lowest prior, then to
    the lowest row.

    The class target (`Assignment.score`) of a pair is its IoU, the weight 1.

    Args:
        topk: predictions whose IoU is added up.
        iou_weight: of -log IoU in the cost.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(self, *, topk: int, iou_weight: float, ignore_threshold: float) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (topk >= 1 and 0 <= iou_weight < torch.inf):
            raise ValueError(
                f"expected topk of 1 or more and a finite iou_weight of 0 or more, got {topk=}, {iou_weight=}"
            )
        self._topk = topk
        self.iou_weight = iou_weight

    @abstractmethod
    def listing(self, priors: Priors, targets: Targets) -> Listing:
        """The candidates."""

    @abstractmethod
    def background(self, predictions: Predictions) -> BackgroundCost:
        """The class cost of each prior as background."""

    @abstractmethod
    def cost(
        self, scene: Scene, pairs: Pairs, targets: Targets, iou: Float32[Tensor, "N"]
    ) -> Float32[Tensor, "N"]:
        """What each pair costs, the same bits wherever it stands."""

    def contenders(
        self,
        scene: Scene,
        pairs: Pairs,
        targets: Targets,
        iou: Float32[Tensor, "N"],
        k: Int64[Tensor, "G"],
    ) -> Int64[Tensor, "M"] | None:
        """Positions of the pairs that may be among the `k` cheapest of their box; None if all may."""
        return None

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        lengths, every = self.listing(priors, targets)
        candidates = once(every, targets)
        predictions = by_column(predictions, lengths)
        scene = Scene(priors, predictions, self.background(predictions))

        def shortlist(part: Targets) -> Valued:
            return self._cheapest(scene, candidates(part), part, story)

        def values(pairs: Pairs, part: Targets) -> tuple[Tensor, ...]:
            iou = self._iou(scene, pairs, part)
            return -self.cost(scene, pairs, part, iou), iou

        selected = piecewise(targets, lengths, shortlist, story)
        pairs, (_, iou) = resolve_among_candidates(
            selected, targets, len(priors), lengths, candidates, values, story
        )
        hard = Assignment.hard(pairs, targets, len(priors), levels=priors.levels, candidates=selected[0])
        return replace(hard, score=iou)

    def _iou(self, scene: Scene, pairs: Pairs, targets: Targets) -> Float32[Tensor, "N"]:
        place = places(pairs, targets, len(scene.priors))
        predicted = predicted_boxes(scene.predictions, place, type(self).__name__)
        return pair_iou(predicted, take_boxes(targets.boxes, pairs.gt))

    def _cheapest(self, scene: Scene, pairs: Pairs, targets: Targets, story: Story) -> Valued:
        """The pairs that each box keeps, with their cost, its sign changed, and IoU."""
        iou = self._iou(scene, pairs, targets)
        k = dynamic_k(iou, pairs.gt, len(targets), self._topk)
        rows = None if story.active else self.contenders(scene, pairs, targets, iou, k)
        if rows is not None:
            pairs, iou = pairs.select(rows), iou.index_select(0, rows)
        gain = -self.cost(scene, pairs, targets, iou)
        kept = segment_topk(gain, pairs.gt, len(targets), k)
        story.candidates(pairs, gain)
        story.keep(kept, otherwise="not_topk")
        return select((pairs, (gain, iou)), kept.nonzero().squeeze(1))


def shared(listings: Sequence[Listing], targets: Targets, prior_count: int) -> Listing:
    """Every candidate that some listing has for a box as a candidate of all boxes of the image.

    Cost grows with boxes × candidates of their image.
    """
    mask = torch.zeros((targets.batch_size, prior_count), dtype=torch.bool, device=targets.boxes.device)
    for listing in listings:

        def mark(piece: slice, pairs: Callable[[Targets], Pairs] = listing.pairs) -> tuple[Tensor, ...]:
            part = targets.select(piece)
            mask.view(-1).index_fill_(0, places(pairs(part), part, prior_count), True)
            return (part.labels,)

        in_pieces(listing.lengths, mark)
    prior, count = mask.nonzero()[:, 1], mask.sum(1)
    begin = count.cumsum(0) - count

    def pairs(part: Targets) -> Pairs:
        lengths = count.index_select(0, part.image)
        position = concatenated_ranges(begin.index_select(0, part.image), lengths)
        gt = torch.repeat_interleave(lengths, output_size=len(position))
        return Pairs(gt, prior.index_select(0, position))

    return Listing(count.index_select(0, targets.image), pairs)
