"""Contested priors that go to the best of all boxes they are candidates of, whoever selected them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..segments import segment_lengths
from ..structures import Pairs, Targets
from .pick import owners
from .piecewise import piecewise
from .story import Story
from .take import places

Valued = tuple[Pairs, tuple[Tensor, ...]]
"""Pairs and some values of each."""


def resolve_among_candidates(
    selected: Valued,
    targets: Targets,
    prior_count: int,
    lengths: Int64[Tensor, "G"],
    candidates: Callable[[Targets], Pairs],
    values: Callable[[Pairs, Targets], tuple[Float[Tensor, "M"], ...]],
    story: Story,
) -> Valued:
    """Leave every prior that several boxes selected to the best of all boxes it is a candidate of.

    That may be one that did not select it. Equal scores go to the lowest row. Only candidates on contested
    priors are scored again; to list them again takes less than to keep them all.

    Args:
        selected: pairs and their values.
        lengths: candidates that each box may bring.
        candidates: of some rows of the targets, as for `piecewise`.
        values: of pairs of these rows; the first is the score, more is better.

    Returns:
        Pairs, ordered by box, then prior, and their values.
    """
    place = places(selected[0], targets, prior_count)
    contested = segment_lengths(place, targets.batch_size * prior_count) > 1
    alone = (~contested.index_select(0, place)).nonzero().squeeze(1)
    if len(alone) == len(place):
        return selected

    def rivals(part: Targets) -> Valued:
        every = candidates(part)
        every = every.select(contested.index_select(0, places(every, part, prior_count)))
        return every, values(every, part)

    disputed = select(selected, contested.index_select(0, place).nonzero().squeeze(1))
    others = piecewise(targets, lengths, rivals, story)
    news = ~torch.isin(_key(others[0], prior_count), _key(disputed[0], prior_count))
    rival = joined([disputed, select(others, news.nonzero().squeeze(1))], prior_count)
    won = owners(rival[0], rival[1][0], targets, prior_count)
    return joined([select(selected, alone), select(rival, won)], prior_count)


def once(candidates: Callable[[Targets], Pairs], targets: Targets) -> Callable[[Targets], Pairs]:
    """The same candidates, but kept for a second time if all rows are asked for in one piece."""
    kept: list[Pairs] = []

    def listed(part: Targets) -> Pairs:
        if len(part) < len(targets):
            return candidates(part)
        if not kept:
            kept.append(candidates(part))
        return kept[0]

    return listed


def joined(parts: list[Valued], prior_count: int) -> Valued:
    """One list of distinct pairs and their values, ordered by box, then prior."""
    gt, prior, *values = (
        torch.cat(column) for column in zip(*((part.gt, part.prior, *values) for part, values in parts))
    )
    every = Pairs(gt, prior), tuple(values)
    return select(every, _key(every[0], prior_count).argsort())


def select(valued: Valued, rows: Int64[Tensor, "M"]) -> Valued:
    """The pairs at some positions, with their values."""
    pairs, values = valued
    return pairs.select(rows), tuple(value.index_select(0, rows) for value in values)


def _key(pairs: Pairs, prior_count: int) -> Int64[Tensor, "N"]:
    return pairs.gt * prior_count + pairs.prior
