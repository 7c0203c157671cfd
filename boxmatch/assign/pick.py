"""Which box owns a prior that several boxes of an image asked for."""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from ..segments import first_by_priority
from ..structures import Pairs, Targets

_LOW_32_BITS = 0xFFFFFFFF


def owners(
    pairs: Pairs, score: Float32[Tensor, "N"], targets: Targets, prior_count: int
) -> Int64[Tensor, "M"]:
    """Positions of the pairs that win their prior: highest score, equal scores to the lowest gt row.

    Args:
        score: what the rivals compete with.
        prior_count: number of priors per image.
    """
    # In place, because these lists are long and fresh memory costs more than arithmetic.
    place = targets.image.index_select(0, pairs.gt).mul_(prior_count).add_(pairs.prior)
    winners = first_by_priority(score, place, targets.batch_size * prior_count, pairs.gt)
    return winners.nonzero().squeeze(1)


def random_score(pairs: Pairs, targets: Targets, seed: int) -> Float32[Tensor, "N"]:
    """A uniform number in [0, 1) per pair, drawn from the seed, the box, its label and the prior alone.

    The stream of a generator would differ between devices, and with the place of an image in the batch. A
    hash of the content does not: a batch gives the same numbers on every device, in any order, and after a
    resumed run, while augmented pictures draw anew at every step because their boxes have moved.
    """
    coordinates = targets.boxes.view(torch.int32).long() & _LOW_32_BITS  # (G, 4), bit patterns
    box = torch.full_like(targets.labels, seed & _LOW_32_BITS)
    for column in (*coordinates.unbind(1), targets.labels):
        box = _mix(box ^ column)
    # float32 holds 24 bits exactly.
    return (_mix(box.index_select(0, pairs.gt) ^ _mix(pairs.prior + 1)) >> 8).float() / 2**24


def _mix(value: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
    """A 32-bit integer hash; the multiplier (T. Mueller) is small enough that int64 never overflows."""
    for _ in range(2):
        value = ((value >> 16) ^ value) * 0x45D9F3B & _LOW_32_BITS
    return (value >> 16) ^ value
