"""The memory bound of all queries."""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from ..segments import budget_slices

PAIR_BUDGET = 2**22
"""Pairs worked on at once, some 200 MB beside the result. The result does not depend on it."""


CACHED_PAIRS = 2**18
"""Pairs whose columns, 1 MB each, stay in a processor's cache from one operation to the next."""


def cached_budget(device: torch.device) -> int:
    """Pairs to work on at once where many operations follow each other and little is kept."""
    return min(PAIR_BUDGET, CACHED_PAIRS) if device.type == "cpu" else PAIR_BUDGET


def in_pieces(
    lengths: Int64[Tensor, "G"], part: Callable[[slice], tuple[Tensor, ...]], *, cached: bool = False
) -> tuple[Tensor, ...]:
    """Join what `part` lists for consecutive boxes, with no more than `PAIR_BUDGET` pairs in work at a time.

    Args:
        lengths: pairs that each box may bring.
        part: lists a slice of the boxes; one box alone may exceed the budget.
        cached: whether `part` works on its pairs many times over and keeps few: on a CPU the pieces are then
            no larger than `CACHED_PAIRS`, which halves the time; elsewhere small pieces only cost launches.
    """
    budget = cached_budget(lengths.device) if cached else PAIR_BUDGET
    parts = [part(piece) for piece in budget_slices(lengths, budget)]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts))
