"""A lottery of priors: boxes draw until each has as many as it is due."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..boxes import box_centers
from ..priors import Priors
from ..segments import segment_lengths, segment_topk
from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets
from .pick import owners, random_score
from .take import places

SPARE = 8
"""Candidates of a box beside twice those it needs; only a lack of them costs another round."""


class Draw:
    """The pairs drawn so far, the priors that are still free, and the boxes that lack some."""

    def __init__(self, priors: Priors, targets: Targets, wanted: Int64[Tensor, "G"], seed: int) -> None:
        self.priors, self.targets, self.seed = priors, targets, seed
        self.missing = wanted.clone()
        self.short = (wanted > 0).nonzero().squeeze(1)
        self.free = torch.ones(targets.batch_size * len(priors), dtype=torch.bool, device=wanted.device)
        self.drawn: list[Pairs] = []

    def pairs(self) -> Pairs:
        """All pairs, ordered by box, then prior."""
        gt = torch.cat([self.short[:0], *(part.gt for part in self.drawn)])
        prior = torch.cat([self.short[:0], *(part.prior for part in self.drawn)])
        return Pairs(gt, prior).select((gt * len(self.priors) + prior).argsort())

    def add_inside(self) -> bool:
        """Draw among the free priors inside the boxes that lack some; False if there were none."""
        targets, missing = self.targets.select(self.short), self.missing.index_select(0, self.short)

        def part(piece: slice) -> tuple[Tensor, ...]:
            boxes = targets.select(piece)
            pairs = self.priors.inside(boxes)
            if self.drawn:
                pairs = pairs.select(self._is_free(pairs, boxes))
            score = random_score(pairs, boxes, self.seed)
            # More than that only matters to a box that loses all of these.
            kept = segment_topk(score, pairs.gt, len(boxes), 2 * missing[piece] + SPARE).nonzero().squeeze(1)
            pairs = pairs.select(kept)
            return pairs.gt + piece.start, pairs.prior, score.index_select(0, kept)

        gt, prior, score = in_pieces(self.priors.count_inside(targets), part)
        return self._match(targets, missing, Pairs(gt, prior), score)

    def add_nearest(self, factor: int) -> bool:
        """Let the boxes that lack some take the nearest free priors, out of `factor` times as many."""
        targets, missing = self.targets.select(self.short), self.missing.index_select(0, self.short)
        most = int(missing.max()) * factor
        lengths = torch.full_like(missing, most * max(len(self.priors.levels), 1))

        def part(piece: slice) -> tuple[Tensor, ...]:
            boxes = targets.select(piece)
            pairs = self.priors.nearest(boxes, most)
            centers = box_centers(boxes.boxes).double().index_select(0, pairs.gt)
            nearness = -(self.priors.centers.index_select(0, pairs.prior) - centers).square().sum(1)
            # As many for each box as if it were alone in the batch, and among them those that are free.
            kept = segment_topk(nearness, pairs.gt, len(boxes), factor * missing[piece])
            kept = kept.logical_and_(self._is_free(pairs, boxes)).nonzero().squeeze(1)
            pairs = pairs.select(kept)
            return pairs.gt + piece.start, pairs.prior, nearness.index_select(0, kept)

        gt, prior, nearness = in_pieces(lengths, part)
        return self._match(targets, missing, Pairs(gt, prior), nearness)

    def _match(
        self, targets: Targets, missing: Int64[Tensor, "S"], pairs: Pairs, preference: Float[Tensor, "N"]
    ) -> bool:
        """Give each box the priors it prefers, and a prior that several want to the greatest random number.

        A box that is refused goes on to the next prior, and a prior changes its owner only for a greater
        number (deferred acceptance, Gale & Shapley 1962): the outcome does not depend on who asks first.
        """
        number = random_score(pairs, targets, self.seed)
        while True:
            claims = segment_topk(preference, pairs.gt, len(targets), missing).nonzero().squeeze(1)
            won = owners(pairs.select(claims), number.index_select(0, claims), targets, len(self.priors))
            if len(won) == len(claims):
                break
            left = torch.ones_like(pairs.gt, dtype=torch.bool)
            left[claims] = False
            left[claims.index_select(0, won)] = True
            rows = left.nonzero().squeeze(1)
            pairs, preference, number = pairs.select(rows), preference[rows], number[rows]
        taken = pairs.select(claims)
        self.free[places(taken, targets, len(self.priors))] = False
        self.drawn.append(Pairs(self.short.index_select(0, taken.gt), taken.prior))
        self.missing[self.short] -= segment_lengths(taken.gt, len(targets))
        self.short = (self.missing > 0).nonzero().squeeze(1)
        return len(taken) > 0

    def _is_free(self, pairs: Pairs, targets: Targets) -> Bool[Tensor, "N"]:
        return self.free.index_select(0, places(pairs, targets, len(self.priors)))
