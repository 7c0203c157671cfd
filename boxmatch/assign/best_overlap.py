"""How well each prediction overlaps the best box of its picture, wherever that box lies."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..structures import Targets

_AT_ONCE = 2**20
"""IoUs computed at once: beside the result some 30 MB."""


@torch.no_grad()
def best_overlap(boxes: Float[Tensor, "B P 4"], targets: Targets) -> Float[Tensor, "B P"]:
    """Highest IoU of each predicted box with any box of its image; 0 in images without boxes.

    Predictions lie on no grid, and a box may be overlapped best by a prediction whose prior lies outside it:
    every prediction is compared with every box of its image, a few boxes of all images at a time.
    """
    x1, y1, x2, y2 = (part.unsqueeze(1) for part in boxes.detach().unbind(2))  # (B, 1, P)
    area = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    best = torch.zeros_like(area[:, 0])
    if not len(targets):
        return best
    step = max(1, _AT_ONCE // max(best.numel(), 1))
    for some in _padded(targets).split(step, dim=1):
        gx1, gy1, gx2, gy2 = some.split(1, dim=2)  # (B, some, 1)
        width = torch.minimum(x2, gx2).sub_(torch.maximum(x1, gx1)).clamp_(min=0)
        height = torch.minimum(y2, gy2).sub_(torch.maximum(y1, gy1)).clamp_(min=0)
        inter = width.mul_(height)
        union = torch.sub((gx2 - gx1) * (gy2 - gy1) + area, inter, out=height)
        iou = inter.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))
        torch.maximum(best, iou.amax(1), out=best)
    return best


def _padded(targets: Targets) -> Float[Tensor, "B M 4"]:
    """The boxes of each image in a row, filled up with boxes without area."""
    counts = targets.per_image()
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(targets), device=counts.device) - first.index_select(0, targets.image)
    padded = targets.boxes.new_zeros((targets.batch_size, int(counts.max()), 4))
    padded[targets.image, slot] = targets.boxes
    return padded
