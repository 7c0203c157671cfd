"""The class cost of a prior if it were background: a sum over all classes, worked out once per prior."""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..structures import Predictions

LOGITS_AT_ONCE = 2**18
"""Logits in work at a time, 2 MB per column of float64."""


class BackgroundCost:
    """Costs by place (image · P + prior), worked out when they are first asked for.

    A class cost that compares all C classes of a prior with a box differs from that of background in the
    box's own class alone. So the sum over classes is needed once per prior, not once per pair, and only for
    priors that a box may come to select.

    Args:
        predictions: of the batch.
        negative: the cost of V priors as background, summed over the classes, from their class logits (V, C)
            and, where the network has them, quality logits (V, 1), both in float64.
    """

    def __init__(
        self,
        predictions: Predictions,
        negative: Callable[[Float64[Tensor, "V C"], Float64[Tensor, "V 1"] | None], Float64[Tensor, "V"]],
    ) -> None:
        self._logits = predictions.logits.flatten(0, 1)
        self._quality = None if predictions.quality is None else predictions.quality.flatten()
        self._negative = negative
        self._known = torch.full_like(self._logits[:, 0], torch.nan, dtype=torch.float64)
        self._asked = torch.zeros_like(self._known, dtype=torch.int64)

    def at(self, place: Int64[Tensor, "N"]) -> Float64[Tensor, "N"]:
        """The cost of the prior at each place, in any order and any number of times."""
        missing = place[self._known.index_select(0, place).isnan()]
        # Of the entries that ask for the same place, the one that is written down there stands for all.
        number = torch.arange(len(missing), device=place.device)
        self._asked.index_copy_(0, missing, number)
        missing = missing[self._asked.index_select(0, missing) == number]
        for rows in missing.split(max(1, LOGITS_AT_ONCE // max(1, self._logits.shape[1]))):
            quality = None if self._quality is None else self._quality.index_select(0, rows)[:, None].double()
            cost = self._negative(self._logits.index_select(0, rows).double(), quality)
            self._known.index_copy_(0, rows, cost)
        return self._known.index_select(0, place)
