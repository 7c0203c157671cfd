"""The control of every comparison: as many positives per box as another method gives, drawn at random."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..boxes import box_centers
from ..priors import Priors
from ..segments import segment_lengths, segment_topk
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .pick import owners, random_score
from .story import Story
from .take import places

SPARE = 8
"""Candidates of a box beside twice those it needs; only a lack of them costs another round."""


class RandomAssigner(Assigner):
    """Inside the box → a random number → as many as another method gives → the greater number owns the prior.

    A box that loses a prior draws the next one; when the priors inside it are used up, it takes the nearest
    free ones. So every box has exactly as many positives as with the other method, unless that gives a prior
    to several boxes and there are not enough priors for all.

    The draw hangs on the seed, the box, its label and the prior alone: the same batch gives the same result
    in any order and on any device. What the other method leaves out of training (`ignored`) is background
    here.

    Args:
        like: the method whose number of positives is copied.
        seed: of the draw.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.
    """

    def __init__(self, like: Assigner, *, seed: int = 0, ignore_threshold: float = 0.5) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        self.like = like
        self.seed = seed
        # That of a class for all other methods.
        self.uses_predictions = like.uses_predictions  # type: ignore[misc]

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """Those of the other method, and what drawing itself breaks."""
        return {
            **self.like.conformance_exceptions,
            "turned_picture": "it draws from the coordinates, which x and y then share otherwise",
        }

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        given = self.like.assign(priors, targets, predictions, Story(False)).pairs
        wanted = segment_lengths(given.gt, len(targets))
        self._tell(story, priors, targets, wanted)
        draw = _Draw(priors, targets, wanted, self.seed)
        while draw.add_inside():
            pass
        reach = 4
        # Once it has reached the last prior, a box that still lacks some cannot be helped.
        while len(draw.short) and reach < 4 * len(priors):
            draw.add_nearest(reach)
            reach *= 4
        return Assignment.hard(draw.pairs(), targets, len(priors), levels=priors.levels)

    def _tell(self, story: Story, priors: Priors, targets: Targets, wanted: Int64[Tensor, "G"]) -> None:
        if not story.active:
            return
        pairs = priors.inside(targets)
        score = random_score(pairs, targets, self.seed)
        story.candidates(pairs, score)
        story.keep(segment_topk(score, pairs.gt, len(targets), wanted), otherwise="not_topk")

    def extra_repr(self) -> str:
        return f"seed={self.seed}"


class _Draw:
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
            pairs = self._free(self.priors.inside(boxes), boxes)
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

    def _free(self, pairs: Pairs, targets: Targets) -> Pairs:
        return pairs.select(self._is_free(pairs, targets))

    def _is_free(self, pairs: Pairs, targets: Targets) -> Bool[Tensor, "N"]:
        return self.free.index_select(0, places(pairs, targets, len(self.priors)))
