"""Dynamic k: each box keeps as many priors as the overlap of its best predictions adds up to."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..segments import segment_sum, segment_topk


def dynamic_k(
    overlap: Float[Tensor, "N"], gt: Int64[Tensor, "N"], count: int, topk: int
) -> Int64[Tensor, "G"]:
    """How many priors each box keeps: the sum of its `topk` greatest overlaps, rounded down, at least 1.

    Args:
        overlap: IoU of each pair.
        gt: ascending.
        count: number of boxes.
        topk: how many overlaps are added up.

    Source: Ge et al. 2021 (OTA, sec. 3.3; SimOTA in YOLOX).
    """
    best = segment_topk(overlap, gt, count, topk).nonzero().squeeze(1)
    # In float64, where the order of the terms does not matter: a sum may be just a whole number.
    total = segment_sum(overlap.index_select(0, best).double(), gt.index_select(0, best), count)
    return total.floor().long().clamp(min=1)


def cheapest(cost: Float[Tensor, "N"], gt: Int64[Tensor, "N"], k: Int64[Tensor, "G"]) -> Bool[Tensor, "N"]:
    """Mark the `k` pairs of lowest cost of each box, equal costs by the lowest prior."""
    return segment_topk(-cost, gt, len(k), k)
