"""The query for anchors that overlap a box by a given IoU."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import box_centers, box_sizes, pair_iou
from ..segments import ragged_arange
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces

# IoU and areas are rounded to float32 a handful of times, 6e-8 each: nothing that passes is less than this below.
IOU_SLACK = 1e-5
# Corners of anchors and boxes are rounded to 2^-24 of the largest coordinate, several of them add up.
CORNER_SLACK = 2.0**-21


def overlapping(
    index: GridIndex, boxes: Float[Tensor, "G 4"], min_iou: float, strict: bool
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Anchors whose IoU with the box is at least `min_iou`, or more than it if `strict`, and their IoU.

    With areas S and s, IoU >= t means an intersection of at least t / (1 + t) · (S + s). That bounds the distance of
    the centres: first of the rows, at best overlap in x; then of the columns in each row, whose overlap in y is known.
    What is left is nearly all accepted by the exact IoU.
    """
    if not len(boxes):
        return Pairs(
            boxes.new_zeros(0, dtype=torch.int64), boxes.new_zeros(0, dtype=torch.int64)
        ), boxes.new_zeros(0)
    # Bounds are taken in float64 so that only the rounding of the boxes themselves needs slack.
    slack = CORNER_SLACK * torch.maximum(boxes.abs().max(), index.boxes.abs().max()).double()
    xs, ys = index.xs.double(), index.ys.double()
    center_x, center_y = box_centers(boxes).double().unbind(-1)  # (G,)
    box = box_sizes(boxes).double().clamp(min=0)[:, None, None]  # (G, 1, 1, 2)
    anchor = index.wh.double()
    reach = (box + anchor) / 2 + slack  # (G, L, A, 2): beyond it nothing is shared
    best = torch.minimum(box, anchor) + 2 * slack
    areas = box.prod(-1) + (anchor - 2 * slack).clamp(min=0).prod(-1)
    needed = min_iou / (1 + min_iou) * (1 - IOU_SLACK) * areas  # (G, L, A)
    # Anchors of a cell share its centre: the one that reaches farthest decides.
    row_reach = _reach(needed, best[..., 0], best[..., 1], reach[..., 1]).amax(-1)  # (G, L)
    column_reach = _reach(needed, best[..., 1], best[..., 0], reach[..., 0]).amax(-1)
    top = torch.searchsorted(ys, (center_y[:, None] - row_reach).T.contiguous()).T
    bottom = torch.searchsorted(ys, (center_y[:, None] + row_reach).T.contiguous(), right=True).T
    rows = (bottom - top).clamp(min=0)
    most = (
        torch.minimum((2 * column_reach / index.stride + 1).clamp(min=0), index.width).long() * index.anchors
    )

    def part(piece: slice) -> tuple[Tensor, ...]:
        block, row = ragged_arange(rows[piece].flatten(), top[piece].flatten())
        gt, level = block // len(index) + (piece.start or 0), block % len(index)
        # Overlap in y of each anchor in this row, and the overlap in x that it leaves to be desired.
        distance = (ys[level, row] - center_y[gt]).abs()[:, None]
        overlap = torch.minimum(best[gt, level, :, 1], reach[gt, level, :, 1] - distance)
        across = _reach(needed[gt, level], overlap, best[gt, level, :, 0], reach[gt, level, :, 0]).amax(-1)
        offset, stride = center_x[gt] - xs[level, 0], index.stride[level]
        left = ((offset - across) / stride).ceil().long().clamp(min=0)
        right = torch.minimum(((offset + across) / stride).floor().long() + 1, index.width[level])
        anchors = index.anchors[level]
        first = index.start[level] + (row * index.width[level] + left) * anchors
        run, prior = ragged_arange((right - left).clamp(min=0) * anchors, first)
        gt = gt[run]
        iou = pair_iou(boxes[gt], index.boxes[prior])
        keep = (iou > min_iou if strict else iou >= min_iou).nonzero().squeeze(1)
        return gt[keep], prior[keep], iou[keep]

    gt, prior, iou = in_pieces((rows * most).sum(1), part)
    return Pairs(gt, prior), iou


def _reach(needed: Tensor, across: Tensor, best: Tensor, reach: Tensor) -> Tensor:
    """How far apart the centres may be along one axis.

    Args:
        needed: intersection that must be reached.
        across: overlap along the other axis.
        best: greatest possible overlap along this axis.
        reach: distance from which on nothing is shared.

    Returns:
        The greatest distance; -1 where the intersection cannot be reached.
    """
    overlap = needed / across.clamp(min=torch.finfo(across.dtype).tiny)
    return torch.where((across > 0) & (overlap <= best), reach - overlap, -1.0)
