"""Task-aligned assignment: each box keeps the priors that classify and locate it best together."""

import math
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..priors import Priors
from ..segments import segment_lengths, segment_max, segment_topk
from ..structures import Assignment, Pairs, Predictions, Targets
from .alignment import LEAST, Alignment
from .base import Assigner
from .contested import Valued, joined, resolve_among_candidates, select
from .measures import Similarity
from .pick import owners
from .piecewise import piecewise
from .points import enlarged, every_prior, side_distances
from .similarity import SimilarityName, as_similarity
from .story import Story
from .take import by_column

Rivals = Literal["selecting", "containing"]


class TaskAligned(Assigner):
    """Inside the box → probability^alpha · similarity^beta → best `topk` → greatest overlap owns the prior.

    The probability is that of the box's class, times that of an object where the network has such a branch;
    the similarity is that of the predicted box, not below 0. A pair's weight and score are its alignment,
    scaled so that the best pair of each box has the box's best similarity: a soft target that tells the
    network which prediction to trust. A box that no prediction inside it overlaps gets no pair.

    Args:
        alpha: exponent of the probability; 0.5 in the YOLO detectors, 1 in the paper.
        beta: exponent of the similarity; 6 in both.
        topk: pairs that each box keeps before contested priors are resolved; 10 in the YOLO detectors, 13 in
            the paper.
        topk2: pairs that each box keeps in the end, the best aligned ones; None for all, 1 for one-to-one.
        similarity: how the predicted box is compared.
        min_side: in pixels; where candidates are sought, a shorter side counts as this, around the same
            centre, so that a box between the points of the finest grid has candidates. A pair (below, size)
            makes sides shorter than `below` `size` long. 0 for neither.
        max_distance: in strides of the prior's level; how far the box's sides may be from its candidates, for
            heads that cannot express more. Infinite for no limit.
        topk_first: take the best `topk` of all priors and only then drop those outside the box, as the paper
            does; every prior is scored with every box.
        rescue: a box whose candidates all fail gets the best aligned of all priors, inside or not.
        rivals: who competes for a contested prior: the boxes that selected it, or all that it lies in.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes.

    Source: Feng et al. 2021 (TOOD), eq. 2 and 3. There the top-k comes before the test for inside; here, as
    in the YOLO detectors, after it, so that a box always chooses among the priors it may use.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 6.0,
        topk: int = 10,
        topk2: int | None = None,
        similarity: SimilarityName | Similarity = "ciou",
        min_side: float | tuple[float, float] = 0.0,
        max_distance: float = math.inf,
        topk_first: bool = False,
        rescue: bool = False,
        rivals: Rivals = "selecting",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (alpha >= 0 and beta >= 0 and topk >= 1):
            raise ValueError(
                f"expected alpha and beta of 0 or more and topk of 1 or more, got {alpha=}, {beta=}, {topk=}"
            )
        if topk2 is not None and not 1 <= topk2 <= topk:
            raise ValueError(f"expected topk2 in 1 .. topk = {topk} or None, got {topk2}")
        below, size = (min_side, min_side) if isinstance(min_side, int | float) else min_side
        if not (0 <= below <= size < math.inf and max_distance > 0):
            raise ValueError(
                "expected min_side of 0 px or more, or two such numbers of which the second is no less, and "
                f"max_distance above 0 strides, got {min_side=}, {max_distance=}"
            )
        if rivals not in get_args(Rivals):
            raise ValueError(f"expected rivals in {get_args(Rivals)}, got {rivals!r}")
        self.alpha, self.beta, self.topk, self.topk2 = alpha, beta, topk, topk2
        self.similarity = as_similarity(similarity)
        self.min_side, self.max_distance = (float(below), float(size)), max_distance
        self.topk_first, self.rescue, self.rivals = topk_first, rescue, rivals

    @classmethod
    def tood(cls) -> "TaskAligned":
        """The constants and the order of the paper: alpha 1, 13 of all priors by IoU, then inside."""
        return cls(alpha=1.0, topk=13, similarity="iou", topk_first=True)

    @classmethod
    def yolov9(cls, reg_max: int = 16) -> "TaskAligned":
        """As in MultimediaTechLab/YOLO: within the reach of `reg_max` bins, no box left empty."""
        return cls(max_distance=reg_max - 1.01, rescue=True)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        count = len(priors)
        lengths = self._lengths(priors, targets)
        score = Alignment(by_column(predictions, lengths), count, self.alpha, self.beta, self.similarity)

        def shortlist(part: Targets) -> Valued:
            best = score.best(self._candidates(priors, part), part, self.topk, story)
            if not self.topk_first:
                return best
            inside = self._admits(priors, part, best[0])
            story.keep(inside, otherwise="outside")
            return select(best, inside.nonzero().squeeze(1))

        selected = piecewise(targets, lengths, shortlist, story)
        if self.rescue:
            selected = _rescued(selected, priors, targets, score)
        owned = self._resolved(selected, priors, targets, score, story)
        if self.topk2 is not None:
            best = segment_topk(owned[1][1], owned[0].gt, len(targets), self.topk2)
            _tell_topk2(selected[0], owned[0], best, count, story)
            owned = select(owned, best.nonzero().squeeze(1))
        pairs, (overlap, alignment) = owned
        # Every box here owns a pair, so its maxima are above 0.
        best_alignment = segment_max(alignment, pairs.gt, len(targets))[pairs.gt]
        target = alignment / best_alignment * segment_max(overlap, pairs.gt, len(targets))[pairs.gt]
        return Assignment(
            pairs=pairs,
            weight=target,
            score=target,
            neg_weight=torch.zeros_like(target),
            ignored=torch.zeros((targets.batch_size, count), dtype=torch.bool, device=target.device),
            targets=targets,
            levels=priors.levels,
            candidates=selected[0],
        )

    def _lengths(self, priors: Priors, targets: Targets) -> Int64[Tensor, "G"]:
        if self.topk_first:
            return torch.full_like(targets.labels, len(priors))
        return priors.count_inside(enlarged(targets, *self.min_side))

    def _candidates(self, priors: Priors, targets: Targets) -> Pairs:
        if self.topk_first:
            return every_prior(priors, targets)
        pairs = priors.inside(enlarged(targets, *self.min_side))
        return pairs if self.max_distance == math.inf else pairs.select(self._admits(priors, targets, pairs))

    def _admits(self, priors: Priors, targets: Targets, pairs: Pairs) -> Bool[Tensor, "N"]:
        """Whether the prior lies in the box, enlarged if small, and its sides within reach."""
        admitted = side_distances(priors, enlarged(targets, *self.min_side), pairs).amin(1) > 0
        if self.max_distance < math.inf:
            farthest = side_distances(priors, targets, pairs).amax(1)
            admitted &= farthest <= self.max_distance * priors.stride.index_select(0, pairs.prior)
        return admitted

    def _resolved(
        self, selected: Valued, priors: Priors, targets: Targets, score: Alignment, story: Story
    ) -> Valued:
        """The pairs whose box owns the prior."""
        if self.rivals == "selecting":
            return select(selected, owners(selected[0], selected[1][0], targets, len(priors)))

        def candidates(part: Targets) -> Pairs:
            pairs = self._candidates(priors, part)
            return pairs.select(self._admits(priors, part, pairs)) if self.topk_first else pairs

        def values(pairs: Pairs, part: Targets) -> tuple[Tensor, ...]:
            overlap, alignment = score.of(pairs, part)
            return torch.where(alignment < LEAST, -1.0, overlap), alignment

        lengths = self._lengths(priors, targets)
        return resolve_among_candidates(selected, targets, len(priors), lengths, candidates, values, story)

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, beta={self.beta}, topk={self.topk}, topk2={self.topk2}, "
            f"similarity={self.similarity!r}, min_side={self.min_side}, max_distance={self.max_distance}, "
            f"topk_first={self.topk_first}, rescue={self.rescue}, rivals={self.rivals!r}, "
            f"ignore_threshold={self.ignore_threshold}"
        )


def _rescued(selected: Valued, priors: Priors, targets: Targets, score: Alignment) -> Valued:
    """Also the best aligned of all priors for each box that has selected none."""
    starved = (segment_lengths(selected[0].gt, len(targets)) == 0).nonzero().squeeze(1)
    rows = targets.select(starved)
    silent = Story(False)

    def best(part: Targets) -> Valued:
        return score.best(every_prior(priors, part), part, 1, silent)

    pairs, values = piecewise(rows, torch.full_like(rows.labels, len(priors)), best, silent)
    return joined([selected, (Pairs(starved[pairs.gt], pairs.prior), values)], len(priors))


def _tell_topk2(selected: Pairs, owned: Pairs, best: Tensor, prior_count: int, story: Story) -> None:
    """Who of the selected lost to another box, and who was not among the best that a box owns."""
    if not story.active:
        return
    key, owned_key = (pairs.gt * prior_count + pairs.prior for pairs in (selected, owned))
    won = torch.isin(key, owned_key)
    story.keep(won, otherwise="lost_to_gt")
    story.keep(torch.isin(key[won], owned_key[best]), otherwise="not_topk")
