"""The queries for priors on no grid: every box against every prior, a bounded number at a time."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..boxes import box_centers, iou_matrix
from ..structures import Pairs
from .pieces import in_pieces


def inside(centers: Float[Tensor, "P 2"], boxes: Float[Tensor, "G 4"]) -> Pairs:
    """Priors whose centre lies strictly inside the box."""

    def part(piece: slice) -> tuple[Tensor, ...]:
        return _listed(_strictly_inside(centers, boxes[piece, None].unbind(-1)), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers)), part))


def within(
    centers: Float[Tensor, "P 2"], stride: Float[Tensor, "P"], boxes: Float[Tensor, "G 4"], radius: float
) -> Pairs:
    """Priors whose centre lies strictly in a square of half side radius · stride around the box's centre."""
    half = radius * stride

    def part(piece: slice) -> tuple[Tensor, ...]:
        x, y = box_centers(boxes[piece])[:, None].unbind(-1)  # (g, 1)
        return _listed(_strictly_inside(centers, (x - half, y - half, x + half, y + half)), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers)), part))


def nearest(centers: Float[Tensor, "P 2"], boxes: Float[Tensor, "G 4"], k: int) -> Pairs:
    """The k priors whose centre is nearest to the box's, equal distances to the lowest prior; in float64."""
    count = min(k, len(centers))
    prior_x, prior_y = centers.double().unbind(1)

    def part(piece: slice) -> tuple[Tensor, ...]:
        x, y = box_centers(boxes[piece]).double()[:, None].unbind(-1)
        distance = (prior_x - x).square() + (prior_y - y).square()  # (g, P)
        threshold = distance.topk(count, largest=False).values[:, count - 1 :]
        nearer, equal = distance < threshold, distance == threshold
        room = count - nearer.sum(1, keepdim=True)
        return _listed(nearer | (equal & (equal.cumsum(1) <= room)), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers)), part))


def overlapping(
    priors: Float[Tensor, "P 4"],
    boxes: Float[Tensor, "G 4"],
    min_iou: float | Float[Tensor, "G"],
    strict: bool,
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Priors whose IoU with the box is at least `min_iou`, or more than it if `strict`, and their IoU.

    An IoU of 0 is none, whatever `min_iou`.
    """

    def part(piece: slice) -> tuple[Tensor, ...]:
        iou = iou_matrix(boxes[piece], priors)  # (g, P)
        threshold = min_iou[piece, None] if isinstance(min_iou, Tensor) else min_iou
        keep = (iou > threshold if strict else iou >= threshold) & (iou > 0)
        return *_listed(keep, piece), iou[keep]

    gt, prior, iou = in_pieces(_all_priors(boxes, len(priors)), part)
    return Pairs(gt, prior), iou


def best_overlapping(
    priors: Float[Tensor, "P 4"], boxes: Float[Tensor, "G 4"]
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """For every box all priors of the greatest IoU it has with any, and that IoU; none where it is 0."""

    def part(piece: slice) -> tuple[Tensor, ...]:
        iou = iou_matrix(boxes[piece], priors)  # (g, P)
        keep = (iou == iou.amax(1, keepdim=True)) & (iou > 0)
        return *_listed(keep, piece), iou[keep]

    if len(priors) == 0:  # nothing has no maximum
        return Pairs(*(torch.zeros(0, dtype=torch.int64, device=boxes.device),) * 2), boxes.new_zeros(0)
    gt, prior, iou = in_pieces(_all_priors(boxes, len(priors)), part)
    return Pairs(gt, prior), iou


def _strictly_inside(centers: Tensor, windows: tuple[Tensor, ...]) -> Bool[Tensor, "G P"]:
    x, y = centers.unbind(1)
    x1, y1, x2, y2 = windows
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _all_priors(boxes: Tensor, count: int) -> Tensor:
    return torch.full((len(boxes),), count, device=boxes.device)


def _listed(keep: Bool[Tensor, "G P"], piece: slice) -> tuple[Tensor, Tensor]:
    gt, prior = keep.nonzero().unbind(1)
    return gt + (piece.start or 0), prior
