"""Arithmetic on boxes: formats, areas, overlaps of pairs. Boxes are xyxy pixels unless the name differs."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def cxcywh_to_xyxy(boxes_cxcywh: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Corners of boxes given by centre, width and height."""
    center, wh = boxes_cxcywh.split(2, dim=-1)
    half = wh / 2
    return torch.cat((center - half, center + half), dim=-1)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Centre, width and height of boxes given by their corners."""
    return torch.cat((box_centers(boxes), box_sizes(boxes)), dim=-1)


def box_centers(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 2"]:
    """Centre (x, y) of each box: half the sum of its corners."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def box_sizes(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 2"]:
    """Width and height of each box; negative where the corners are swapped."""
    return boxes[..., 2:] - boxes[..., :2]


def area(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Area in square pixels; a box with swapped corners has none."""
    width, height = box_sizes(boxes).clamp(min=0).unbind(-1)
    return width * height


def take_boxes(boxes: Float[Tensor, "M 4"], rows: Int64[Tensor, "N"]) -> Float[Tensor, "N 4"]:
    """`boxes[rows]`, laid out column by column: arithmetic on long lists of pairs is then twice as fast."""
    columns = boxes.T
    if len(rows) < len(boxes) and not columns.is_contiguous():
        # Turning the few rows costs less than turning all boxes.
        return boxes.index_select(0, rows).T.contiguous().T
    return columns.contiguous().index_select(1, rows).T


def pair_intersection(boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Area that each box shares with the other box of its pair, in square pixels."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(-1)
    width = torch.minimum(x2, other_x2) - torch.maximum(x1, other_x1)
    height = torch.minimum(y2, other_y2) - torch.maximum(y1, other_y1)
    return width.clamp(min=0) * height.clamp(min=0)


def pair_iou(boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Intersection over union of each pair, in [0, 1]; two boxes without area have 0."""
    inter, union = _inter_and_union(boxes, others)
    return _ratio(inter, union)


def pair_giou(boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Generalised IoU of each pair, in [-1, 1]; where the enclosing box has no area it equals the IoU.

    Source: Rezatofighi et al. 2019, algorithm 1.
    """
    return pair_iou_and_giou(boxes, others)[1]


def pair_iou_and_giou(
    boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """What `pair_iou` and `pair_giou` give, for the price of the second."""
    inter, union = _inter_and_union(boxes, others)
    x1, y1, x2, y2 = boxes.unbind(-1)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(-1)
    width = torch.maximum(x2, other_x2) - torch.minimum(x1, other_x1)
    height = torch.maximum(y2, other_y2) - torch.minimum(y1, other_y1)
    hull = width.clamp(min=0) * height.clamp(min=0)
    iou = _ratio(inter, union)
    return iou, iou - _ratio(hull - union, hull)


def pair_diou(boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Distance IoU of each pair, in [-1, 1].

    The IoU, less the squared distance of the centres over the squared diagonal of the enclosing box.

    Source: Zheng et al. 2020, eq. 7.
    """
    distance = (box_centers(boxes) - box_centers(others)).square().sum(-1)
    diagonal = box_sizes(_hull(boxes, others)).square().sum(-1)
    return pair_iou(boxes, others) - _ratio(distance, diagonal)


def pair_iof(boxes: Float[Tensor, "*N 4"], others: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Share of each box's area inside the other box of its pair, in [0, 1]; 0 for a box without area."""
    return _ratio(pair_intersection(boxes, others), area(boxes))


def shape_iou(wh: Float[Tensor, "*#N 2"], others: Float[Tensor, "*#N 2"]) -> Float[Tensor, "*N"]:
    """IoU of boxes that share their centre; leading axes broadcast.

    Args:
        wh: widths and heights, any unit.
        others: the same unit as `wh`.

    Returns:
        IoU in [0, 1]; two boxes without area have 0.

    Source: Redmon & Farhadi 2018 (YOLOv3), sec. 2.1.
    """
    inter = torch.minimum(wh, others).prod(-1)
    return _ratio(inter, wh.prod(-1) + others.prod(-1) - inter)


def iou_matrix(boxes: Float[Tensor, "N 4"], others: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """IoU of every box with every other box, bit for bit that of `pair_iou`: not for boxes × priors."""
    return pair_iou(*torch.broadcast_tensors(boxes[:, None], others[None]))


def _inter_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    inter = pair_intersection(boxes, others)
    return inter, area(boxes) + area(others) - inter


def _hull(boxes: Tensor, others: Tensor) -> Tensor:
    """Smallest box around each pair."""
    top_left = torch.minimum(boxes[..., :2], others[..., :2])
    return torch.cat((top_left, torch.maximum(boxes[..., 2:], others[..., 2:])), dim=-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 where both are 0."""
    return part / whole.clamp(min=torch.finfo(whole.dtype).tiny)
