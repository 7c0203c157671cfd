"""The queries for anchors that overlap a box by a given IoU, and for those that overlap it best."""

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from ..boxes import area, box_centers, box_sizes, pair_iou, take_boxes
from ..segments import concatenated_ranges, ragged_arange, segment_max
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces
from .reach import farthest, needed_intersection

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
    center_y = box_centers(boxes)[:, 1, None].double()
    # The anchors of a cell share its centre, so the one that reaches farthest decides.
    farthest_x = farthest(needed, best[..., 1], best[..., 0], reach[..., 0]).amax(2)  # (G, L)
    farthest_y = farthest(needed, best[..., 0], best[..., 1], reach[..., 1]).amax(2)
    ys = index.ys.double()
    top = torch.searchsorted(ys, (center_y - farthest_y).T.contiguous()).T
    bottom = torch.searchsorted(ys, (center_y + farthest_y).T.contiguous(), right=True).T
    rows = (bottom - top).clamp(min=0)
    # Never more pairs than this; only the memory bound looks at it.
    columns = (2 * farthest_x / index.step[:, 0] + 1).clamp(min=0).minimum(index.width).long() * index.anchors
    limits = torch.cat((best, reach, needed[..., None]), dim=3).flatten(0, 1)  # (G · L, A, 5)

    def part(piece: slice) -> tuple[Tensor, ...]:
        block, row = ragged_arange(rows[piece].flatten(), top[piece].flatten())
        block.add_((piece.start or 0) * len(index))
        gt = block.div(len(index), rounding_mode="floor")
        level, own = block - gt * len(index), boxes.index_select(0, gt)
        line, first, length = _runs(index, own, level, row, limits.index_select(0, block))
        run, cell = ragged_arange(length, first)
        iou = _iou(index, own, line, run, cell)  # (C, A)
        keep = _reaching(iou, min_iou, gt, run, strict)
        if index.ragged:
            keep &= index.is_anchor.index_select(0, level).index_select(0, run)
        kept = keep.flatten().nonzero().squeeze(1)
        place, prior = _unflatten(index, cell, kept)
        gt = gt.index_select(0, run.index_select(0, place))
        return gt, prior, iou.flatten().index_select(0, kept)

    gt, prior, iou = in_pieces((rows * columns).sum(1), part, cached=True)
    return Pairs(gt, prior), iou


def _runs(
    index: GridIndex,
    boxes: Float[Tensor, "R 4"],
    level: Int64[Tensor, "R"],
    row: Int64[Tensor, "R"],
    limits: Float64[Tensor, "R A 5"],
) -> tuple[Int64[Tensor, "R"], Int64[Tensor, "R"], Int64[Tensor, "R"]]:
    """The cells of a row that may hold a box's anchors.

    Args:
        boxes: the box of each row.
        limits: what `_limits` says of it and the level's anchors.

    Returns:
        First cell of the row, first cell of the run, and its length.
    """
    best_x, best_y, reach_x, reach_y, needed = limits.unbind(2)  # (R, A)
    center_x, center_y = box_centers(boxes).double().unbind(1)
    y = index.ys.flatten().index_select(0, level * index.ys.shape[1] + row)
    overlap_y = torch.minimum(best_y, reach_y - (y - center_y).abs_()[:, None])
    distance = farthest(needed, overlap_y, best_x, reach_x).amax(1)  # (R,)
    offset = center_x - index.xs[:, 0].index_select(0, level)
    step, width = index.step[:, 0].index_select(0, level), index.width.index_select(0, level)
    left = ((offset - distance) / step).ceil_().long().clamp_(min=0)
    right = ((offset + distance) / step).floor_().long().add_(1).minimum(width)
    line = index.cell.index_select(0, level) + row * width
    return line, line + left, (right - left).clamp_(min=0)


def _unflatten(
    index: GridIndex, cell: Int64[Tensor, "C"], kept: Int64[Tensor, "N"]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Which of the cells, and which prior, some positions in the list of all their anchors are."""
    anchors = index.wh.shape[1]
    if anchors == 1:
        return kept, cell.index_select(0, kept)
    place = kept.div(anchors, rounding_mode="floor")
    begin = torch.arange(0, len(cell) * anchors, anchors, device=cell.device)
    shift = index.first.index_select(0, cell).sub_(begin)
    return place, shift.index_select(0, place).add_(kept)


def _iou(
    index: GridIndex,
    boxes: Float[Tensor, "R 4"],
    line: Int64[Tensor, "R"],
    run: Int64[Tensor, "C"],
    cell: Int64[Tensor, "C"],
) -> Float[Tensor, "C A"]:
    """IoU of the anchors of every cell of every run with the run's box, bit for bit that of `pair_iou`.

    Args:
        line: first cell of the run's row: all cells of a row share their overlap in y.
        run: of each cell.
        cell: number of each cell.
    """
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # (R, 1)
    top = torch.maximum(_take(index.y1, line), y1)
    height = torch.minimum(_take(index.y2, line), y2).sub_(top).clamp_(min=0)  # (R, A)
    # In place, because these lists are long and fresh memory costs more than arithmetic.
    left = torch.maximum(_take(index.x1, cell), _take(x1, run))
    width = torch.minimum(_take(index.x2, cell), _take(x2, run)).sub_(left).clamp_(min=0)
    inter = width.mul_(_take(height, run))
    union = _take(index.areas, cell).add_(_take(area(boxes)[:, None], run)).sub_(inter)
    return inter.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def _take(table: Shaped[Tensor, "R A"], rows: Int64[Tensor, "C"]) -> Shaped[Tensor, "C A"]:
    """`table[rows]`; single entries are gathered four times as fast as rows of one entry."""
    if table.shape[1] == 1:
        return table.flatten().index_select(0, rows)[:, None]
    return table.index_select(0, rows)


def _reaching(
    iou: Float[Tensor, "C A"],
    min_iou: float | Float[Tensor, "G"],
    gt: Int64[Tensor, "R"],
    run: Int64[Tensor, "C"],
    strict: bool,
) -> Bool[Tensor, "C A"]:
    """Which pairs share anything and reach the threshold, one for all or that of their box."""
    if not isinstance(min_iou, Tensor):
        return iou > min_iou if strict or min_iou == 0 else iou >= min_iou
    # The smallest number above 0 stands for 0: raised once per box, not compared once more per pair.
    least = min_iou if strict else min_iou.clamp(min=2.0**-149)
    threshold = least.index_select(0, gt).index_select(0, run)[:, None]
    return iou > threshold if strict else iou >= threshold


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
    share = min_iou.double()[:, None, None] if isinstance(min_iou, Tensor) else min_iou
    return best, reach, needed_intersection(share, areas) * (1 - IOU_SLACK)
