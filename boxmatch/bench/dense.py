"""The dense forms of the grid methods: a boxes × priors matrix, image by image, as published code does it.

They are here to be measured against and compared with; nothing else uses them.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxmatch.assign.grid import UNION_EPS
from boxmatch.priors import Priors
from boxmatch.structures import Targets

METHODS = ("single_grid", "nearby_grid", "all_grid")


def dense_gt_index(method: str, priors: Priors, targets: Targets, threshold: float) -> Int64[Tensor, "B P"]:
    """Row in `targets` that each prior learns, -1 for background; targets without ignore regions."""
    rows = []
    for image in range(targets.batch_size):
        mine = (targets.image == image).nonzero().squeeze(1)
        rows.append(_image_gt_index(method, priors, targets.boxes[mine], mine, threshold))
    return torch.stack(rows) if rows else torch.zeros((0, len(priors.boxes)), dtype=torch.int64)


def _image_gt_index(
    method: str, priors: Priors, boxes: Float[Tensor, "M 4"], rows: Int64[Tensor, "M"], threshold: float
) -> Int64[Tensor, "P"]:
    if len(boxes) == 0:
        return torch.full((len(priors.boxes),), -1, device=boxes.device)
    if method == "all_grid":
        iou = _iou_matrix(priors, boxes)
        iou = torch.where(iou > threshold, iou, -1.0)
    else:
        iou = _shape_iou_matrix(priors, boxes)
        near = _near_cell(priors, boxes, reach=0 if method == "single_grid" else 1)
        iou = torch.where(near & (iou >= threshold), iou, -1.0)
    best, owner = iou.max(0)
    return torch.where(best >= 0, rows[owner], -1)


def _iou_matrix(priors: Priors, boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M P"]:
    top_left = torch.maximum(boxes[:, None, :2], priors.boxes[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], priors.boxes[:, 2:])
    inter = (bottom_right - top_left).clamp(min=0).prod(2)
    return _divide(inter, priors, boxes)


def _shape_iou_matrix(priors: Priors, boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M P"]:
    inter = torch.minimum((boxes[:, 2:] - boxes[:, :2])[:, None], priors.boxes[:, 2:] - priors.boxes[:, :2]).prod(2)
    return _divide(inter, priors, boxes)


def _divide(
    inter: Float[Tensor, "M P"], priors: Priors, boxes: Float[Tensor, "M 4"]
) -> Float[Tensor, "M P"]:
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, priors.boxes)]
    picture = [float(level.height * level.width * level.stride**2) for level in priors.levels]
    eps = UNION_EPS * torch.tensor(picture, device=boxes.device)[priors.level]
    return inter / (areas[0][:, None] + areas[1] - inter + eps)


def _near_cell(priors: Priors, boxes: Float[Tensor, "M 4"], reach: int) -> Bool[Tensor, "M P"]:
    """Whether the prior's cell is at most `reach` columns and rows from the cell of the box's centre."""
    stride = priors.stride[:, None]
    grid = torch.tensor([(level.width, level.height) for level in priors.levels], device=boxes.device)[priors.level]
    cell = (priors.centers / stride).floor()  # (P, 2)
    center = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # (M, 1, 2)
    home = (center / stride).floor().clamp(min=0).minimum(grid - 1)  # (M, P, 2)
    return ((cell - home).abs() <= reach).all(2)
