"""The story of an assignment: which candidates there were, and at which step each one was lost."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..structures import REASONS, Assignment, Explanation, Pairs

Reason = Literal["outside", "wrong_level", "below_threshold", "not_topk", "lost_to_gt", "ignored"]
"""The reasons of `structures.REASONS` that an assigner gives; the base finds out what was kept."""


class Story:
    """Listens to an assigner as it narrows its candidates down.

    An assigner tells the story in the order of its own steps: `candidates` once, then `keep` for each step
    that drops some. The base adds how it ended: pairs of the result are kept whatever was told; a pair that
    was never dropped is ignored where its prior is, and otherwise lost to another box.

    Args:
        active: whether anybody listens; if not, telling costs nothing.
    """

    def __init__(self, active: bool) -> None:
        self.active = active
        self._pairs: Pairs | None = None

    def candidates(
        self,
        pairs: Pairs,
        score: Float[Tensor, "N"] | None = None,
        threshold: Float[Tensor, "N"] | None = None,
    ) -> None:
        """Name all candidates, ordered by ground truth, no pair twice.

        Args:
            pairs: all pairs the rule looks at.
            score: what it compares, more is better.
            threshold: what the score must reach, per pair.
        """
        if not self.active:
            return
        nothing = torch.full((len(pairs),), torch.nan, device=pairs.gt.device)
        self._pairs = pairs
        self._score = nothing if score is None else score.detach().float()
        self._threshold = nothing if threshold is None else threshold.detach().float()
        self._reason = torch.zeros_like(pairs.gt)
        self._alive = torch.arange(len(pairs), device=pairs.gt.device)

    def keep(self, kept: Bool[Tensor, "M"], *, otherwise: Reason) -> None:
        """Drop the candidates where `kept` does not hold.

        Args:
            kept: one entry per candidate that no earlier step has dropped, in the same order.
            otherwise: the reason for which the others are lost.
        """
        if not self.active:
            return
        self._reason[self._alive[~kept]] = REASONS.index(otherwise)
        self._alive = self._alive[kept]

    def finish(self, assignment: Assignment) -> Explanation:
        """The explanation, given how it ended."""
        if self._pairs is None:
            nothing = torch.zeros(0, device=assignment.weight.device)
            self.candidates(Pairs(nothing.long(), nothing.long()))
        assert self._pairs is not None
        priors = assignment.ignored.shape[1]
        place = _key(self._pairs, priors)
        result = _key(assignment.pairs, priors)
        ignored = assignment.ignored[assignment.targets.image[self._pairs.gt], self._pairs.prior]
        reason = torch.where(
            self._reason > 0,
            self._reason,
            torch.where(ignored, REASONS.index("ignored"), REASONS.index("lost_to_gt")),
        ).masked_fill(torch.isin(place, result), REASONS.index("kept"))
        # What a rule rescued at the end was no candidate before.
        extra = assignment.pairs.select(~torch.isin(result, place))
        nothing = torch.full((len(extra),), torch.nan, device=place.device)
        order = torch.cat((place, _key(extra, priors))).argsort()
        return Explanation(
            pairs=Pairs(
                torch.cat((self._pairs.gt, extra.gt))[order],
                torch.cat((self._pairs.prior, extra.prior))[order],
            ),
            score=torch.cat((self._score, nothing))[order],
            threshold=torch.cat((self._threshold, nothing))[order],
            reason=torch.cat((reason, torch.zeros_like(extra.gt)))[order],
        )


def _key(pairs: Pairs, priors: int) -> Int64[Tensor, "N"]:
    """One number per pair, in the order of ground truth, then prior."""
    return pairs.gt * priors + pairs.prior
