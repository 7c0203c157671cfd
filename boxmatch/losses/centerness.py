"""Centerness: how near to the middle of a box a point lies."""

import torch
from jaxtyping import Float
from torch import Tensor


def centerness(centers: Float[Tensor, "N 2"], boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
    """sqrt(min(l, r) / max(l, r) · min(t, b) / max(t, b)), in [0, 1]; 0 for a point on or beyond the border.

    Args:
        centers: (x, y) in pixels.
        boxes: xyxy in pixels; l, t, r, b are the distances from the centre to their sides.

    Source: Tian et al. 2019 (FCOS), eq. 3.
    """
    near = torch.minimum(centers - boxes[:, :2], boxes[:, 2:] - centers).clamp(min=0)
    far = torch.maximum(centers - boxes[:, :2], boxes[:, 2:] - centers)
    # A box without extent has no middle: 0 / tiny is 0.
    return (near / far.clamp(min=torch.finfo(far.dtype).tiny)).prod(1).sqrt()
