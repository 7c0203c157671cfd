"""The one-to-one matching of least total cost, by scipy's solver."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


def solver() -> Callable[..., Any]:
    """scipy's solver, imported when it is first needed.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            "Hungarian needs scipy, which is not installed: pip install 'boxmatch[hungarian]'"
        ) from error
    return linear_sum_assignment


def least_total_cost(
    cost: Float32[Tensor, "g P"], *, repeats: int = 1, groups: int = 1
) -> tuple[Int64[Tensor, "M"], Int64[Tensor, "M"]]:
    """Row and column of each match, ordered; as many matches as the shorter side has entries.

    Of several matchings of least cost the solver finds one, the same for the same costs; it runs on the CPU.

    Args:
        cost: finite.
        repeats: columns that each row gets, as far as there are enough for all rows.
        groups: equal runs of columns, each matched by itself.
    """
    per_group = cost.shape[1] // groups
    repeats = max(1, min(repeats, per_group // max(len(cost), 1)))
    matrix = cost.cpu().double().repeat_interleave(repeats, 0).numpy()
    found = [torch.zeros((2, 0), dtype=torch.int64)]
    for group in range(groups):
        row, column = solver()(matrix[:, group * per_group : (group + 1) * per_group])
        place = torch.from_numpy(column) + group * per_group
        found.append(torch.stack((torch.from_numpy(row) // repeats, place)))
    row, column = torch.cat(found, 1)
    order = (row * cost.shape[1] + column).argsort()
    return row[order].to(cost.device), column[order].to(cost.device)
