"""The queries for anchors that overlap a box by a given IoU, and for those that overlap it best."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..boxes import box_centers, box_sizes, pair_iou, take_boxes
from ..segments import concatenated_ranges, ragged_arange, segment_max
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces

# IoU and areas are rounded to float32 a handful of times, 6e-8 each.
IOU_SLACK = 1e-5
# Corners of anchors and boxes are off by up to 2^-22 of the largest coordinate; several of them add up.
CORNER_SLACK = 2.0**-20


def overlapping(
    index: GridIndex, boxes: Float[Tensor, "G 4"], min_iou: float | Float[Tensor, "G"], strict: bool
) -> tuple[Pairs, Float[Tensor, "N"]]:
    """Anchors whose IoU with the box is at least `min_iou`, or more than it if `strict`, and their IoU.

    An IoU of 0 is none, whatever `min_iou`.

    With areas S and s, IoU >= t means an intersection of at least t / (1 + t) · (S + s). That bounds the
    distance of the centres: first of the rows, at best overlap in x; then of the columns in each row, whose
    overlap in y is known. What is left is nearly all accepted by the exact IoU.
    """
    # Bounds are taken in float64: only the rounding of the corners and of the IoU itself needs slack.
    largest = torch.cat((boxes.flatten().abs(), index.extent[None])).amax()
    best, reach, needed = _limits(index, boxes, min_iou, CORNER_SLACK * largest)
    center_x, center_y = box_centers(boxes).double().unbind(1)
    # The anchors of a cell share its centre, so the one that reaches farthest decides.
    farthest_x = _farthest(needed, best[..., 1], best[..., 0], reach[..., 0]).amax(2)  # (G, L)
    farthest_y = _farthest(needed, best[..., 0], best[..., 1], reach[..., 1]).amax(2)
    ys = index.ys.double()
    top = torch.searchsorted(ys, (center_y[:, None] - farthest_y).T.contiguous()).T
    bottom = torch.searchsorted(ys, (center_y[:, None] + farthest_y).T.contiguous(), right=True).T
    rows = (bottom - top).clamp(min=0)
    # Never more pairs than this; only the memory bound looks at it.
    columns = (2 * farthest_x / index.step[:, 0] + 1).clamp(min=0).minimum(index.width).long() * index.anchors
    limits = torch.cat((best, reach, needed[..., None]), dim=3).flatten(0, 1)  # (G · L, A, 5)

    def part(piece: slice) -> tuple[Tensor, ...]:
        block, row = ragged_arange(rows[piece].flatten(), top[piece].flatten())
        block = block + (piece.start or 0) * len(index)
        gt, level = block // len(index), block % len(index)
        best_x, best_y, reach_x, reach_y, enough = limits.index_select(0, block).unbind(2)  # (R, A)
        distance_y = (ys[level, row] - center_y[gt]).abs()[:, None]
        overlap_y = torch.minimum(best_y, reach_y - distance_y)
        distance_x = _farthest(enough, overlap_y, best_x, reach_x).amax(1)  # (R,)
        offset, step, width = center_x[gt] - index.xs[level, 0], index.step[level, 0], index.width[level]
        left = ((offset - distance_x) / step).ceil().long().clamp(min=0)
        right = ((offset + distance_x) / step).floor().long().add(1).minimum(width)
        anchors = index.anchors[level]
        length = (right - left).clamp(min=0) * anchors
        prior = concatenated_ranges(index.start[level] + (row * width + left) * anchors, length)
        gt = gt.repeat_interleave(length, output_size=len(prior))
        iou = pair_iou(take_boxes(boxes, gt), take_boxes(index.boxes, prior))
        keep = reaches(iou, gt, min_iou, strict).nonzero().squeeze(1)
        return tuple(values.index_select(0, keep) for values in (gt, prior, iou))

    gt, prior, iou = in_pieces((rows * columns).sum(1), part)
    return Pairs(gt, prior), iou


def best_overlapping(index: GridIndex, boxes: Float[Tensor, "G 4"]) -> tuple[Pairs, Float[Tensor, "N"]]:
    """For every box all anchors of the greatest IoU it has with any, and that IoU; none where it is 0.

    What an anchor shape has in common with a box falls with the distance of the centres in x and in y, so the
    cell nearest to the box's centre has the greatest IoU of each level, or, where coordinates were rounded,
    nearly. `overlapping` lists what reaches the best of these; the exact comparison is among few.
    """
    gt, prior = nearest_cells(index, boxes)
    nearby = segment_max(pair_iou(take_boxes(boxes, gt), take_boxes(index.boxes, prior)), gt, len(boxes))
    pairs, iou = overlapping(index, boxes, nearby, strict=False)
    best = segment_max(iou, pairs.gt, len(boxes))
    keep = (iou == best.index_select(0, pairs.gt)).nonzero().squeeze(1)
    return pairs.select(keep), iou.index_select(0, keep)


def reaches(
    iou: Float[Tensor, "N"], gt: Int64[Tensor, "N"], min_iou: float | Float[Tensor, "G"], strict: bool
) -> Bool[Tensor, "N"]:
    """Which pairs share anything and reach the threshold, one for all or that of their box."""
    if not isinstance(min_iou, Tensor):
        return iou > min_iou if strict or min_iou == 0 else iou >= min_iou
    if strict:
        return iou > min_iou.index_select(0, gt)
    # The smallest number above 0 stands for 0: raised once per box, not compared once more per pair.
    return iou >= min_iou.clamp(min=2.0**-149).index_select(0, gt)


def nearest_cells(
    index: GridIndex, boxes: Float[Tensor, "G 4"]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Box and anchor of all anchors of the cell nearest to each box's centre, on every level."""
    origin = torch.stack((index.xs[:, 0], index.ys[:, 0]), dim=1)  # (L, 2)
    last = torch.stack((index.width, index.height), dim=1) - 1
    place = (box_centers(boxes)[:, None] - origin) / index.step  # (G, L, 2) in cells
    column, row = place.round_().clamp_(min=0).minimum(last).long().unbind(2)
    first = index.start + (row * index.width + column) * index.anchors  # (G, L)
    anchors = index.anchors.expand(len(boxes), -1)
    prior = concatenated_ranges(first.flatten(), anchors.flatten())
    gt = torch.arange(len(boxes), device=boxes.device).repeat_interleave(int(index.anchors.sum()))
    return gt, prior


def _limits(
    index: GridIndex, boxes: Tensor, min_iou: float | Tensor, slack: Tensor
) -> tuple[Float[Tensor, "G L A 2"], Float[Tensor, "G L A 2"], Float[Tensor, "G L A"]]:
    """What shapes alone tell of each box and anchor, on the safe side by `slack` px at each corner.

    Returns:
        The greatest overlap in x and y, the distance in x and y from which on nothing is shared, and the
        intersection that is needed for the IoU.
    """
    box = box_sizes(boxes).double().clamp(min=0)[:, None, None]  # (G, 1, 1, 2)
    anchor = index.wh.double()
    best = torch.minimum(box, anchor) + 2 * slack
    reach = (box + anchor) / 2 + 2 * slack
    areas = box.prod(3) + (anchor - 2 * slack).clamp(min=0).prod(2)
    share = min_iou / (1 + min_iou) * (1 - IOU_SLACK)
    if isinstance(share, Tensor):
        share = share.double()[:, None, None]
    return best, reach, share * areas


def _farthest(needed: Tensor, across: Tensor, best: Tensor, reach: Tensor) -> Tensor:
    """How far apart the centres may be along one axis.

    Args:
        needed: intersection that must be reached.
        across: overlap along the other axis.
        best: greatest overlap along this axis.
        reach: distance from which on nothing is shared along this axis.

    Returns:
        The greatest distance; -1 where the intersection is out of reach.
    """
    overlap = needed / across.clamp(min=torch.finfo(across.dtype).tiny)
    return torch.where((across > 0) & (overlap <= best), reach - overlap, -1.0)
