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


def resolve_among_candidates(
    selected: tuple[Pairs, tuple[Tensor, ...]],
    targets: Targets,
    prior_count: int,
    lengths: Int64[Tensor, "G"],
    candidates: Callable[[Targets], Pairs],
    values: Callable[[Pairs, Targets], tuple[Float[Tensor, "M"], ...]],
    story: Story,
) -> tuple[Pairs, tuple[Tensor, ...]]:
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
    pairs, known = selected
    place = places(pairs, targets, prior_count)
    contested = segment_lengths(place, targets.batch_size * prior_count) > 1
    alone = (~contested.index_select(0, place)).nonzero().squeeze(1)
    if len(alone) == len(pairs):
        return selected

    def rivals(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
        every = candidates(part)
        every = every.select(contested.index_select(0, places(every, part, prior_count)))
        return every, values(every, part)

    rival, rival_values = piecewise(targets, lengths, rivals, story)
    won = owners(rival, rival_values[0], targets, prior_count)
    parts = [
        (pairs.select(alone), tuple(value.index_select(0, alone) for value in known)),
        (rival.select(won), tuple(value.index_select(0, won) for value in rival_values)),
    ]
    return joined(parts, prior_count)


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


def joined(
    parts: list[tuple[Pairs, tuple[Tensor, ...]]], prior_count: int
) -> tuple[Pairs, tuple[Tensor, ...]]:
    """One list of distinct pairs and their values, ordered by box, then prior."""
    gt, prior, *values = (
        torch.cat(column) for column in zip(*((part.gt, part.prior, *values) for part, values in parts))
    )
    order = (gt * prior_count + prior).argsort()
    return Pairs(gt[order], prior[order]), tuple(value[order] for value in values)
