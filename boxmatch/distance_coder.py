"""Box coding of FCOS: distances in pixels from a point to the four sides."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .priors import Priors


@dataclass(frozen=True)
class DistanceCoder:
    """Boxes as distances (left, top, right, bottom) in pixels from the prior's centre.

    Source: Tian et al. 2019 (FCOS), eq. 1; pixels rather than strides, as in DW.
    """

    def decode_boxes(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """Boxes (xyxy, pixels) of the distances of a whole batch, one for every prior."""
        return _decode(deltas, priors.centers)

    def decode_xyxy(
        self, deltas: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Boxes (xyxy, pixels) of the distances at the rows `prior` of `priors`."""
        return _decode(deltas, priors.centers[prior])

    def encode_xyxy(
        self, boxes: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Distances to the sides of boxes (xyxy, pixels); negative where the centre lies outside."""
        centers = priors.centers[prior]
        return torch.cat((centers - boxes[:, :2], boxes[:, 2:] - centers), dim=-1)


def _decode(deltas: Tensor, centers: Tensor) -> Tensor:
    return torch.cat((centers - deltas[..., :2], centers + deltas[..., 2:]), dim=-1)
