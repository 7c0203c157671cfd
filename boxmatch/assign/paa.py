"""PAA: a mixture of two Gaussians tells the good candidates of a box from the bad."""

from typing import ClassVar, get_args

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from ..delta_coder import DeltaCoder
from ..priors import Priors
from ..segments import segment_lengths, segment_max, segment_topk
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .boundary import Boundary, Split, split_by_mixture
from .iou_match import Matches, iou_matches
from .paa_cost import BoxCost, ClassCost, PairCosts
from .story import Story


class PAA(Assigner):
    """IoU with the prior's best box → -(class + box loss) → best per level, mixture boundary → disjoint.

    A prior is a candidate of the one box it overlaps most, from IoU `positive` on; the best priors of a box
    that none overlaps so much are candidates too, of their own best box. The cost of a pair is what the
    network would pay for it: the class loss over all classes plus the box loss. A box keeps the `topk` lowest
    of each level; two Gaussians are fitted to these, and the candidates up to the peak of the better one are
    positive. A box with one candidate keeps it; a box may have none.

    With G+ the candidates that the better Gaussian explains at least as well as the other, and k the one of
    them where the density of the mixture is greatest, `boundary` means, in the order of the costs

    * "c" (the published code): up to k positive, the rest negative;
    * "a": G+ positive, the rest negative;
    * "b": up to k positive, negative from the densest candidate outside G+ on, those between ignored;
    * "d": up to k positive, the rest of G+ ignored, the others negative.

    Where G+ is empty all candidates are positive.

    The variant for proposal networks (PAA on the RPN of Faster R-CNN) is `PAA(class_cost="bce",
    box_cost="l1")`: a network of one class, so all labels are 0. The anchors of a cell are pooled.

    Args:
        topk: candidates that a box keeps on each level.
        positive: IoU from which on a prior is a candidate.
        boundary: which candidates the mixture makes positive, negative and ignored.
        class_cost: "focal" loss or plain cross entropy ("bce"), summed over all classes.
        box_cost: "giou" of the decoded boxes, or "l1" over the four deltas.
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss.
        inclusive_pixels: whether the GIoU takes a pixel off the right and lower edges (see `giou_loss`): True
            with boxes (x1, y1, x2 + 1, y2 + 1) and priors of `AnchorGrid(..., shift=0.5)` to reproduce the
            published code.
        coder: makes the deltas that "l1" compares with the network's; that of an RPN if not given.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes for "giou", or a label
            that is no class of the predictions.

    Source: Kim & Lee 2020 (PAA), section 3; kkhoot/PAA, where the box loss has no weight in the cost.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: int = 9,
        positive: float = 0.1,
        boundary: Boundary = "c",
        class_cost: ClassCost = "focal",
        box_cost: BoxCost = "giou",
        alpha: float = 0.25,
        gamma: float = 2.0,
        inclusive_pixels: bool = False,
        coder: DeltaCoder | None = None,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (topk >= 1 and 0 < positive <= 1):
            raise ValueError(f"expected topk of 1 or more and positive in (0, 1], got {topk=}, {positive=}")
        if boundary not in get_args(Boundary):
            raise ValueError(f"expected boundary in {get_args(Boundary)}, got {boundary!r}")
        self.topk = topk
        self.positive = positive
        self.boundary: Boundary = boundary
        coder = DeltaCoder((1.0, 1.0, 1.0, 1.0)) if coder is None else coder
        self.costs = PairCosts(class_cost, box_cost, alpha, gamma, inclusive_pixels, coder)
        # A saved detector reads its assigner's arguments off these.
        self.class_cost, self.box_cost, self.alpha, self.gamma = class_cost, box_cost, alpha, gamma
        self.inclusive_pixels, self.coder = inclusive_pixels, coder

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        matches = iou_matches(priors, targets, self.positive, self.positive, low_quality="keep_argmax")
        matched = matches.pairs
        lengths = segment_lengths(matched.gt, len(targets))
        ends = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))

        def shortlist(boxes: slice) -> tuple[Tensor, ...]:
            first, last = ends[[boxes.start, boxes.stop]].tolist()
            part = Pairs(matched.gt[first:last], matched.prior[first:last])
            rows, cost = self._shortlist(part, priors, targets, predictions)
            return rows + first, cost

        rows, cost = in_pieces(lengths, shortlist)
        pooled = matched.select(rows)
        split = split_by_mixture(cost, pooled.gt, len(targets), self._most(priors), self.boundary)
        assignment = Assignment.hard(
            pooled.select(split.positive), targets, len(priors), levels=priors.levels, candidates=pooled
        )
        ignored = pooled.select(split.ignored)
        assignment.ignored[targets.image[ignored.gt], ignored.prior] = True
        if story.active:
            self._tell(story, matches, rows, split, priors, targets, predictions)
        return assignment

    def _shortlist(
        self, pairs: Pairs, priors: Priors, targets: Targets, predictions: Predictions
    ) -> tuple[Int64[Tensor, "K"], Float32[Tensor, "K"]]:
        """Positions of the `topk` pairs of lowest cost of each box and level, ascending, and their cost.

        Looking at all classes takes most of the time, so it is done for few pairs: first for the `topk` that
        seem best without it, then for those that may still be better than the worst of them.
        """
        levels = max(len(priors.levels), 1)
        count = len(targets) * levels
        segment = priors.level.index_select(0, pairs.prior).add_(pairs.gt, alpha=levels)
        least = self.costs.least(pairs, priors, targets, predictions)
        cost = torch.full_like(least, torch.inf)

        def look_at(rows: Int64[Tensor, "R"]) -> None:
            part = least.index_select(0, rows)
            cost.index_copy_(
                0, rows, self.costs.whole(part, pairs.select(rows), priors, targets, predictions)
            )

        first = segment_topk(-least, segment, count, self.topk).nonzero().squeeze(1)
        look_at(first)
        worst = segment_max(cost.index_select(0, first), segment.index_select(0, first), count)
        look_at(((least <= worst.index_select(0, segment)) & cost.isinf()).nonzero().squeeze(1))
        rows = cost.isfinite().nonzero().squeeze(1)
        cost = cost.index_select(0, rows)
        kept = segment_topk(-cost, segment.index_select(0, rows), count, self.topk).nonzero().squeeze(1)
        return rows.index_select(0, kept), cost.index_select(0, kept)

    def _tell(
        self,
        story: Story,
        matches: Matches,
        rows: Int64[Tensor, "K"],
        split: Split,
        priors: Priors,
        targets: Targets,
        predictions: Predictions,
    ) -> None:
        """The cost of every pair that a box asked for, and where the box drew its boundary.

        Args:
            rows: of the matched pairs, those that were among the best of their box and level.
        """
        asked, matched = (
            pairs.gt * len(priors) + pairs.prior for pairs in (matches.candidates, matches.pairs)
        )
        key = torch.cat((asked, matched)).unique()
        pairs = Pairs(key // len(priors), key % len(priors))
        least = self.costs.least(pairs, priors, targets, predictions)
        cost = self.costs.whole(least, pairs, priors, targets, predictions)
        limit = segment_max(split.limit, matches.pairs.gt.index_select(0, rows), len(targets))
        limit.masked_fill_(limit.isneginf(), torch.nan)  # a box that owns no candidate has none
        story.candidates(pairs, -cost, -limit.index_select(0, pairs.gt))
        story.keep(torch.isin(key, matched), otherwise="lost_to_gt")
        shortlisted = torch.zeros_like(matched, dtype=torch.bool).index_fill_(0, rows, True)
        story.keep(shortlisted, otherwise="not_topk")
        story.keep(split.positive | split.ignored, otherwise="below_threshold")

    def _most(self, priors: Priors) -> int:
        """The most candidates that a box can keep."""
        return sum(min(self.topk, len(level)) for level in priors.levels) or min(self.topk, len(priors))

    def extra_repr(self) -> str:
        costs = self.costs
        return (
            f"topk={self.topk}, positive={self.positive}, boundary={self.boundary!r}, "
            f"class_cost={costs.class_cost!r}, box_cost={costs.box_cost!r}, "
            f"inclusive_pixels={costs.inclusive_pixels}"
        )
