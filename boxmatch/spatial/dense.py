"""The same queries for priors that lie on no grid: every box against every prior, a bounded number at a time."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..boxes import box_centers, pair_iou
from ..structures import Pairs
from .pieces import in_pieces


def inside(centers: Float[Tensor, "P 2"], boxes: Float[Tensor, "G 4"]) -> Pairs:
    """Priors whose centre lies strictly inside the box."""

    def part(piece: slice) -> tuple[Tensor, ...]:
        return _listed(_strictly_inside(centers, boxes[piece]), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers)), part))


def within(centers: Float[Tensor, "P 2"], stride: Float[Tensor, "P"], boxes: Tensor, radius: float) -> Pairs:
    """Priors whose centre lies strictly inside the square of half side radius · stride around the box's centre."""

    def part(piece: slice) -> tuple[Tensor, ...]:
        center = box_centers(boxes[piece])[:, None]
        half = (radius * stride)[:, None]
        window = torch.cat((center - half, center + half), dim=-1)  # (g, P, 4)
        return _listed(((centers > window[..., :2]) & (centers < window[..., 2:])).all(-1), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers)), part))


def nearest(centers: Float[Tensor, "P 2"], boxes: Float[Tensor, "G 4"], k: int) -> Pairs:
    """The k priors whose centre is nearest to the box's, equal distances to the lowest prior."""
    count = min(k, len(centers))

    def part(piece: slice) -> tuple[Tensor, ...]:
        gap = centers.double() - box_centers(boxes[piece]).double()[:, None]  # (g, P, 2)
        distance = gap.square().sum(-1)
        threshold = distance.topk(count, largest=False).values[:, -1:]
        nearer, equal = distance < threshold, distance == threshold
        room = count - nearer.sum(1, keepdim=True)
        return _listed(nearer | (equal & (equal.cumsum(1) <= room)), piece)

    return Pairs(*in_pieces(_all_priors(boxes, len(centers) if count else 0), part))


def overlapping(
    priors: Float[Tensor, "P 4"], boxes: Float[Tensor, "G 4"], min_iou: float, strict: bool
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Priors whose IoU with the box is at least `min_iou`, or more than it if `strict`, and their IoU."""

    def part(piece: slice) -> tuple[Tensor, ...]:
        iou = pair_iou(*torch.broadcast_tensors(boxes[piece][:, None], priors[None]))  # (g, P)
        keep = iou > min_iou if strict else iou >= min_iou
        return *_listed(keep, piece), iou[keep]

    gt, prior, iou = in_pieces(_all_priors(boxes, len(priors)), part)
    return Pairs(gt, prior), iou


def _strictly_inside(centers: Tensor, boxes: Tensor) -> Bool[Tensor, "G P"]:
    x, y = centers.unbind(1)
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _all_priors(boxes: Tensor, count: int) -> Tensor:
    return torch.full((len(boxes),), count, device=boxes.device)


def _listed(keep: Bool[Tensor, "G P"], piece: slice) -> tuple[Tensor, Tensor]:
    gt, prior = keep.nonzero().unbind(1)
    return gt + (piece.start or 0), prior
