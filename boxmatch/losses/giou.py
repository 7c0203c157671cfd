"""The generalised IoU as a loss, un-reduced."""

import torch
from jaxtyping import Float
from torch import Tensor

from .box_similarity import MAX_COORDINATE


def giou_loss(
    boxes: Float[Tensor, "N 4"],
    targets: Float[Tensor, "N 4"],
    *,
    eps: float = 1e-7,
    inclusive_pixels: bool = False,
) -> Float[Tensor, "N"]:
    """1 - GIoU of each box with its target, in [0, 2]: 0 for equal boxes.

    Right and lower edges are held at or beyond the left and upper ones, so a box without extent, or with
    negative extent, has no area. Values and gradients are finite for every finite input; coordinates beyond
    ± 1e6 count as that.

    Args:
        boxes: xyxy pixels.
        targets: xyxy pixels.
        eps: added to the union and to the area of the smallest box around both, square pixels.
        inclusive_pixels: take one pixel off the right and lower edges first. The ATSS and PAA family counts
            x2 - x1 + 1 pixels everywhere (the plain boxes of this package hold that pixel already) except in
            this loss.

    Source: Rezatofighi et al. 2019, algorithm 1; eps and the held edges as in ATSS and PAA.
    """
    x1, y1, x2, y2 = _edges(boxes, inclusive_pixels)
    target_x1, target_y1, target_x2, target_y2 = _edges(targets, inclusive_pixels)
    width = torch.minimum(x2, target_x2) - torch.maximum(x1, target_x1)
    height = torch.minimum(y2, target_y2) - torch.maximum(y1, target_y1)
    inter = width.clamp(min=0) * height.clamp(min=0)
    areas = (x2 - x1) * (y2 - y1) + (target_x2 - target_x1) * (target_y2 - target_y1)
    union = areas - inter + eps
    outer_width = torch.maximum(x2, target_x2) - torch.minimum(x1, target_x1)
    outer_height = torch.maximum(y2, target_y2) - torch.minimum(y1, target_y1)
    outer = outer_width * outer_height + eps
    return 1 - (inter / union - (outer - union) / outer)


def _edges(boxes: Tensor, inclusive_pixels: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.clamp(-MAX_COORDINATE, MAX_COORDINATE).unbind(1)
    if inclusive_pixels:
        x2, y2 = x2 - 1, y2 - 1
    return x1, y1, torch.maximum(x1, x2), torch.maximum(y1, y2)
