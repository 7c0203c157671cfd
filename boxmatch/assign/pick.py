"""Which box owns a prior that several boxes of an image asked for."""

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..segments import first_by_priority
from ..structures import Pairs, Targets


def owner_mask(pairs: Pairs, score: Float[Tensor, "N"], targets: Targets, prior_count: int) -> Bool[Tensor, "N"]:
    """The pairs that win their prior: highest score, equal scores to the lowest gt row.

    Args:
        score: what the rivals compete with, any unit.
        prior_count: number of priors per image.
    """
    place = targets.image[pairs.gt] * prior_count + pairs.prior
    return first_by_priority(score, place, targets.batch_size * prior_count, pairs.gt)


def random_score(pairs: Pairs, targets: Targets, seed: int) -> Float32[Tensor, "N"]:
    """A uniform number in [0, 1) per pair that depends on the seed, the box, its label and the prior, and nothing else.

    A generator's stream would differ between devices and with the place of an image in the batch. A hash of the
    content does not: a batch gives the same numbers on every device, in any order, and after a resumed run, while
    augmented pictures draw anew at every step because their boxes have moved.
    """
    coordinates = targets.boxes.view(torch.int32).long() & _LOW_32_BITS                      # (G, 4) bit patterns
    box = torch.full_like(targets.labels, seed & _LOW_32_BITS)
    for column in (*coordinates.unbind(1), targets.labels):
        box = _mix(box ^ column)
    # 24 bits are what float32 holds exactly.
    return (_mix(box[pairs.gt] ^ _mix(pairs.prior + 1)) >> 8).float() / 2**24


_LOW_32_BITS = 0xFFFFFFFF


def _mix(value: Int64[Tensor, "*N"]) -> Int64[Tensor, "*N"]:
    """A 32-bit integer hash; the multiplier (T. Mueller) is small enough that int64 never overflows."""
    for _ in range(2):
        value = ((value >> 16) ^ value) * 0x45D9F3B & _LOW_32_BITS
    return (value >> 16) ^ value
