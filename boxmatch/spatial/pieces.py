"""The memory bound of all queries."""

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from ..segments import budget_slices

PAIR_BUDGET = 2**22
"""Pairs worked on at once, some 200 MB beside the result. The result does not depend on it."""


def in_pieces(lengths: Int64[Tensor, "G"], part: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Join what `part` lists for consecutive boxes, with no more than `PAIR_BUDGET` pairs in work at a time.

    Args:
        lengths: pairs that each box may bring.
        part: lists a slice of the boxes; one box alone may exceed the budget.
    """
    parts = [part(piece) for piece in budget_slices(lengths, PAIR_BUDGET)]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts))
