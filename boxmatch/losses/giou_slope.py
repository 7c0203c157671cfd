"""The GIoU loss of long lists of pairs together with its gradient: a quarter of the time of a graph."""

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_AREA = 1e-6
"""Square pixels that a union or hull counts at least. Source: strongwolf/DW."""


def giou_loss_and_slope(
    boxes: Float[Tensor, "N 4"], targets: Float[Tensor, "N 4"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "4 N"]]:
    """1 - GIoU of each pair, and its gradient with respect to x1, y1, x2, y2 of the first box.

    Where an edge lies exactly on that of the target, the mean of the slopes to both sides holds, as in a
    graph: a perfect prediction stays where it is. A side of negative length counts as 0.

    Args:
        boxes: xyxy, laid out column by column for speed.
        targets: xyxy of some extent.

    Source: Rezatofighi et al. 2019, algorithm 1; with inter I, union U, hull H the loss is 2 - I/U - U/H.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    target_x1, target_y1, target_x2, target_y2 = targets.unbind(1)
    width, height = (x2 - x1).clamp_(min=0), (y2 - y1).clamp_(min=0)
    common_width = torch.minimum(x2, target_x2).sub_(torch.maximum(x1, target_x1))
    common_height = torch.minimum(y2, target_y2).sub_(torch.maximum(y1, target_y1))
    met = (common_width >= 0).logical_and_(common_height >= 0)
    common_width.clamp_(min=0)
    common_height.clamp_(min=0)
    hull_width = torch.maximum(x2, target_x2).sub_(torch.minimum(x1, target_x1))
    hull_height = torch.maximum(y2, target_y2).sub_(torch.minimum(y1, target_y1))
    inter = common_width * common_height
    target_area = (target_x2 - target_x1).clamp_(min=0).mul_((target_y2 - target_y1).clamp_(min=0))
    union = target_area.add_(width * height).sub_(inter).clamp_(min=LEAST_AREA)
    hull = hull_width.mul(hull_height).clamp_(min=LEAST_AREA)
    iou = inter.div_(union)
    fill = union / hull
    # With U = A + T - I (A and T the areas of the two boxes): the slopes in A, I and H.
    by_hull = fill / hull
    by_area = (iou / union).sub_(hull.reciprocal())
    by_inter = union.reciprocal().add_(by_area).neg_().mul_(met)
    loss = 2 - iou.add_(fill)

    by_common_width, by_common_height = by_inter * common_height, by_inter.mul_(common_width)
    by_width, by_height = by_area * height, by_area.mul_(width)
    by_width.mul_(x2 >= x1)
    by_height.mul_(y2 >= y1)
    by_hull_width, by_hull_height = by_hull * hull_height, by_hull.mul_(hull_width)
    half = torch.full_like(loss[:0].sum(), 0.5)
    slope = torch.empty_like(boxes.T)
    edges = (
        (x1 - target_x1, by_common_width, by_hull_width, by_width, slope[0]),
        (y1 - target_y1, by_common_height, by_hull_height, by_height, slope[1]),
        (target_x2 - x2, by_common_width, by_hull_width, by_width, slope[2]),
        (target_y2 - y2, by_common_height, by_hull_height, by_height, slope[3]),
    )
    for inwards, by_common, by_hull_side, by_side, result in edges:
        torch.lerp(by_hull_side, by_common, torch.heaviside(inwards, half), out=result).add_(by_side)
    slope[:2].neg_()
    return loss, slope
