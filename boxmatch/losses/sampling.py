"""A random sample of priors with a bounded share of positives, from which Faster R-CNN learns."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


class Sample(NamedTuple):
    """Image and prior of each one drawn, ordered by image."""

    positive: tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]
    negative: tuple[Int64[Tensor, "M"], Int64[Tensor, "M"]]


def balanced_sample(
    positive: Bool[Tensor, "B P"], negative: Bool[Tensor, "B P"], count: int, positive_fraction: float
) -> Sample:
    """Draw `count` priors of each image at random: positives up to their share, then negatives.

    All images at once. Where there are fewer positives than their share, negatives take their places; where
    there are too few of both, all are drawn. It draws from PyTorch's default generator of the device.

    Args:
        positive: priors that learn a box.
        negative: background; priors in neither mask are never drawn.
        count: of each image.
        positive_fraction: greatest share of positives, in [0, 1].

    Source: Ren et al. 2015 (Faster R-CNN), sec. 3.1.3.
    """
    key = torch.rand(positive.shape, device=positive.device)
    room = positive.sum(1).clamp(max=int(count * positive_fraction))
    return Sample(_draw(key, positive, room, count), _draw(key, negative, count - room, count))


def _draw(
    key: Tensor, allowed: Bool[Tensor, "B P"], room: Int64[Tensor, "B"], most: int
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Of each image the `room` allowed priors with the greatest keys, `most` at most."""
    value, prior = key.masked_fill(~allowed, -1.0).topk(min(most, key.shape[1]), dim=1)
    drawn = (value >= 0) & (torch.arange(value.shape[1], device=key.device) < room[:, None])
    return drawn.nonzero()[:, 0], prior[drawn]
