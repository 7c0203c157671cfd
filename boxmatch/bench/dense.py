"""The dense forms of the grid methods: a boxes × priors matrix, image by image, as published code does it.

They are here to be measured against and compared with; nothing else uses them. Letters: M boxes of one image.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxmatch.assign.grid import union_eps
from boxmatch.boxes import area, box_centers, box_sizes
from boxmatch.priors import Priors
from boxmatch.structures import Targets

METHODS = ("single_grid", "nearby_grid", "all_grid")

ROUNDING = 1e-6
"""IoUs this close to each other or to the threshold may fall either way in float32."""


def dense_gt_index(method: str, priors: Priors, targets: Targets, threshold: float) -> Int64[Tensor, "B P"]:
    """Row in `targets` that each prior learns, -1 for background; targets without ignore regions."""
    index = torch.full((targets.batch_size, len(priors)), -1, device=priors.boxes.device)
    for image in range(targets.batch_size):
        rows = (targets.image == image).nonzero().squeeze(1)
        if len(rows):
            best, owner = _score_matrix(method, priors, targets.boxes[rows]).max(0)
            positive = best > threshold if method == "all_grid" else best >= threshold
            index[image] = torch.where(positive, rows[owner], -1)
    return index


def count_errors(
    method: str, priors: Priors, targets: Targets, threshold: float, gt_index: Int64[Tensor, "B P"]
) -> int:
    """Number of priors whose owner the dense form in float64 does not confirm, rounding allowed."""
    errors = 0
    for image in range(targets.batch_size):
        rows = (targets.image == image).nonzero().squeeze(1)
        scores = _score_matrix(method, priors, targets.boxes[rows].double())
        scores = torch.cat((scores.new_full((1, len(priors)), threshold), scores))  # row 0 is the background
        owner = gt_index[image]
        claim = torch.where(owner < 0, 0, owner - (rows[0] if len(rows) else 0) + 1)
        foreign = (owner >= 0) & ((claim < 1) | (claim > len(rows)))
        claimed = scores.gather(0, claim.masked_fill(foreign, 0)[None])[0]
        errors += int((foreign | (claimed < scores.amax(0) - ROUNDING)).sum())
    return errors


def _score_matrix(method: str, priors: Priors, boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M P"]:
    """What each box offers for each prior; -1 where the method does not let it."""
    if method == "all_grid":
        top_left = torch.maximum(boxes[:, None, :2], priors.boxes[:, :2])
        bottom_right = torch.minimum(boxes[:, None, 2:], priors.boxes[:, 2:])
        return _iou((bottom_right - top_left).clamp(min=0).prod(2), priors, boxes)
    inter = torch.minimum(box_sizes(boxes)[:, None], priors.wh).prod(2)
    near = _near_cell(priors, boxes, reach=0 if method == "single_grid" else 1)
    return torch.where(near, _iou(inter, priors, boxes), -1.0)


def _iou(inter: Float[Tensor, "M P"], priors: Priors, boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M P"]:
    eps = union_eps(priors)[priors.level]
    return inter / (area(boxes)[:, None] + priors.wh.prod(1) - inter + eps)


def _near_cell(priors: Priors, boxes: Float[Tensor, "M 4"], reach: int) -> Bool[Tensor, "M P"]:
    """Whether the prior's cell is at most `reach` columns and rows from the cell of the box's centre."""
    stride = priors.stride[:, None]
    size = torch.tensor([(level.width, level.height) for level in priors.levels], device=boxes.device)
    cell = (priors.centers / stride).floor()  # (P, 2)
    home = (box_centers(boxes)[:, None] / stride).floor().clamp(min=0).minimum(size[priors.level] - 1)
    return ((cell - home).abs() <= reach).all(2)
