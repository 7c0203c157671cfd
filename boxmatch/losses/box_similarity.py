"""The IoU family on aligned pairs of boxes, differentiable and finite on every finite input."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

SimilarityKind = Literal["iou", "giou", "diou", "ciou", "siou", "ciou_lite", "siou_lite"]

# Coordinates beyond this are held there: squares and products of two stay finite in float32.
MAX_COORDINATE = 1e6


def check_similarity(kind: str, name: str) -> None:
    """Raise ValueError for a name that is no similarity."""
    if kind not in get_args(SimilarityKind):
        raise ValueError(f"expected {name} in {get_args(SimilarityKind)}, got {kind!r}")


class _Geometry(NamedTuple):
    """What the members of the family share: (N,) and (N, 2) tensors of the pairs."""

    iou: Tensor
    union: Tensor
    enclosing: Tensor  # sides of the smallest box around both
    between: Tensor  # from the centre of the target to that of the prediction
    size: Tensor
    target_size: Tensor


def box_similarity(
    boxes: Float[Tensor, "N 4"], targets: Float[Tensor, "N 4"], kind: SimilarityKind, eps: float = 1e-6
) -> Float[Tensor, "N"]:
    """Similarity of each box to its target; 1 for equal boxes (up to eps), lower is worse.

    * iou: intersection over union.
    * giou: iou - (E - U) / E, with E the area of the smallest box around both.
    * diou: iou - d² / c², with d the distance of the centres and c the diagonal of that box.
    * ciou: diou - alpha v, with v = 4 / π² (Δ atan(w / h))² and alpha = v / (1 - iou + v), without gradient.
    * siou: iou - (distance + shape cost) / 2, the distance weighted by the angle cost.
    * ciou_lite, siou_lite: diou and iou minus (Δ atan(w / h))² / 4π². These are what the simple-YOLO
      reference calls ciou and siou; the aspect term is up to 16 times weaker than v and has no alpha.

    Boxes with negative extent are allowed: they overlap nothing. Values and gradients are finite for every
    finite input; coordinates beyond ± 1e6 count as that.

    Args:
        boxes: xyxy.
        targets: xyxy, the same unit.
        kind: member of the family.
        eps: added to areas and squared diagonals, and the least side whose aspect ratio is looked at. It has
            an effect on small boxes: the reference's 1e-6 is meant for coordinates divided by the side of the
            image.

    Source: Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (DIoU, CIoU), Gevorgyan 2022 (SIoU);
    zh320/simple-yolo-pytorch, `core/loss.py` (the lite forms).
    """
    geometry = _geometry(boxes, targets, eps)
    iou = geometry.iou
    if kind == "iou":
        return iou
    if kind == "giou":
        enclosing = geometry.enclosing.prod(1)
        return iou - (enclosing - geometry.union) / (enclosing + eps)
    if kind == "siou":
        return iou - _siou_cost(geometry, eps)
    if kind == "siou_lite":
        return iou - _aspect_difference(geometry, eps) / (4 * math.pi**2)
    distance = geometry.between.square().sum(1) / (geometry.enclosing.square().sum(1) + eps)
    if kind == "diou":
        return iou - distance
    if kind == "ciou_lite":
        return iou - distance - _aspect_difference(geometry, eps) / (4 * math.pi**2)
    aspect = 4 / math.pi**2 * _aspect_difference(geometry, eps)
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + eps)
    return iou - distance - alpha * aspect


def _geometry(boxes: Tensor, targets: Tensor, eps: float) -> _Geometry:
    low, high = boxes.clamp(-MAX_COORDINATE, MAX_COORDINATE).split(2, dim=1)
    target_low, target_high = targets.clamp(-MAX_COORDINATE, MAX_COORDINATE).split(2, dim=1)
    size, target_size = high - low, target_high - target_low
    overlap = torch.minimum(high, target_high) - torch.maximum(low, target_low)
    intersection = overlap.clamp(min=0).prod(1)
    # The area of an inverted box is negative, as in the reference: under giou it pushes the sizes back up.
    # Such a box has no intersection, so the clamp below changes no IoU; it only keeps the denominator away
    # from 0.
    union = size.prod(1) + target_size.prod(1) - intersection
    return _Geometry(
        iou=intersection / (union.clamp(min=0) + eps),
        union=union,
        enclosing=(torch.maximum(high, target_high) - torch.minimum(low, target_low)).clamp(min=0),
        between=(low + high - target_low - target_high) / 2,
        size=size,
        target_size=target_size,
    )


def _aspect_difference(geometry: _Geometry, eps: float) -> Tensor:
    """Squared difference of the angles of the diagonals, (N,)."""
    width, height = geometry.size.clamp(min=eps).unbind(1)
    target_width, target_height = geometry.target_size.clamp(min=eps).unbind(1)
    return (torch.atan2(width, height) - torch.atan2(target_width, target_height)).square()


def _siou_cost(geometry: _Geometry, eps: float) -> Tensor:
    """Half of distance cost plus shape cost, (N,).

    The angle cost 1 - 2 sin²(arcsin(x) - π/4) of the paper equals sin(2 arcsin(x)) = 2 |dx dy| / (dx² + dy²),
    which needs no arcsin and no root.
    """
    between = geometry.between
    angle = 2 * between.prod(1).abs() / (between.square().sum(1) + eps**2)
    relative = (between / geometry.enclosing.clamp(min=eps)).square()
    distance = -torch.expm1((angle - 2).unsqueeze(1) * relative)
    largest = torch.maximum(geometry.size, geometry.target_size).clamp(min=eps)
    mismatch = (geometry.size - geometry.target_size).abs() / largest
    shape = (-torch.expm1(-mismatch)).pow(4)  # theta = 4, the paper's value
    return (distance + shape).sum(1) / 2
