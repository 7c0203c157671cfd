"""The query for the priors nearest to a box's centre."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..boxes import box_centers
from ..segments import concatenated_ranges
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces

LEVEL_SIZE = 2**40
"""More than the cells of any level, so that a multiple of it can be added to a cell number and taken off."""


def nearest(index: GridIndex, boxes: Float[Tensor, "G 4"], k: int, whole_cells: bool = False) -> Pairs:
    """The k priors of each level whose centre is nearest to the box's, equal distances to the lowest prior.

    With `whole_cells`, all anchors of the k nearest cells.

    Order the columns by their distance to the centre, and the rows. The cell in the i-th column and the j-th
    row has i · j - 1 others that are as near or nearer, so only cells with i · j <= n can be among the n
    nearest: 23 for n = 9, wherever the centre lies, outside the grid too.

    Squared distances are compared in float64, on float32 centres. Less than 2^15 px from the grid float64
    tells apart all distances that differ, so the order is the true one.
    """
    limit = k * index.anchors if whole_cells else torch.full_like(index.anchors, k)
    wanted = torch.minimum(index.height * index.width * index.anchors, limit)  # (L,) priors
    cells = (wanted + index.anchors - 1) // index.anchors  # (L,)
    most, per_box = torch.stack((cells.max(), wanted.sum())).tolist()
    slot = torch.arange(most, device=boxes.device)
    column_rank, row_rank = ((slot[:, None] + 1) * (slot + 1) <= most).nonzero().unbind(1)  # (C,)
    # Levels with fewer cells leave slots empty, and the farthest cell may give only some of its anchors.
    anchors = index.anchors[:, None]
    given = anchors * (slot < cells[:, None])  # (L, K)
    withheld = cells[:, None] * anchors - wanted[:, None]

    def part(piece: slice) -> tuple[Tensor, Tensor]:
        center_x, center_y = box_centers(boxes[piece]).double().unbind(-1)
        column, distance_x = _by_distance(index.xs, index.width, center_x, most)  # (L, g, K)
        row, distance_y = _by_distance(index.ys, index.height, center_y, most)
        row = row * index.width[:, None, None]
        cell = row.index_select(2, row_rank) + column.index_select(2, column_rank)  # (L, g, C)
        distance = distance_y.index_select(2, row_rank) + distance_x.index_select(2, column_rank)
        cell, farthest = (part.transpose(0, 1) for part in _nearest_cells(distance, cell, cells))  # (g, L, K)
        count = given - withheld * (cell == farthest)
        prior = concatenated_ranges((index.start[:, None] + cell * anchors).flatten(), count.flatten())
        gt = torch.arange(len(boxes), device=boxes.device)[piece]
        return gt.repeat_interleave(per_box), prior

    candidates = len(index) * len(column_rank)
    return Pairs(*in_pieces(torch.full((len(boxes),), candidates, device=boxes.device), part))


def _by_distance(
    lines: Float[Tensor, "L W"], length: Int64[Tensor, "L"], center: Float64[Tensor, "G"], count: int
) -> tuple[Int64[Tensor, "L G K"], Float64[Tensor, "L G K"]]:
    """The nearest lines of each level, equal distances to the lower one, and their distance squared.

    Lines are evenly spaced: after the nearest they alternate, beginning on the side on which the centre
    lies; when one side has run out, the rest is on the other. Where a level has fewer lines the distance is
    inf.
    """
    lines, last = lines.double(), (length - 1)[:, None]
    centers = center.expand(len(lines), -1).contiguous()  # (L, G)
    after = torch.searchsorted(lines, centers)
    before, after = (after - 1).clamp(min=0), torch.minimum(after, last)
    nearer_before = (centers - lines.gather(1, before)).abs() <= (centers - lines.gather(1, after)).abs()
    first = torch.where(nearer_before, before, after)
    below, above = first, last - first
    both = torch.minimum(below, above)[..., None]
    # On a line itself the lower neighbour is the next.
    side = torch.where(centers > lines.gather(1, first), 1, -1)[..., None]
    larger_side = torch.where(above > below, 1, -1)[..., None]
    rank = torch.arange(count, device=lines.device)
    swing = (rank + 1) // 2 * (2 * (rank % 2) - 1)  # 0, 1, -1, 2, -2, …
    step = torch.where(rank <= 2 * both, swing * side, (rank - both) * larger_side)  # (L, G, K)
    missing = rank > last[..., None]
    line = (first[..., None] + step).masked_fill(missing, 0)
    distance = (lines.gather(1, line.flatten(1)).view_as(line) - centers[..., None]).square()
    return line, distance.masked_fill(missing, torch.inf)


def _nearest_cells(
    distance: Float64[Tensor, "L G C"], cell: Int64[Tensor, "L G C"], count: Int64[Tensor, "L"]
) -> tuple[Int64[Tensor, "L G K"], Int64[Tensor, "L G 1"]]:
    """The `count` nearest of each level's candidates, ascending, then filler; and the farthest of them."""
    most = int(count.max())
    place = (count - 1)[:, None, None].expand(-1, distance.shape[1], 1)
    threshold = distance.topk(most, largest=False).values.gather(2, place)
    # Nearer cells keep their number, those at the threshold queue behind them, the others never get in.
    turn = (distance >= threshold).long() + (distance > threshold)
    chosen = (cell + turn * LEVEL_SIZE).topk(most, largest=False).values  # (L, G, K), ascending
    farthest = chosen.gather(2, place)
    cells = (chosen % LEVEL_SIZE).masked_fill(chosen > farthest, LEVEL_SIZE)
    return cells.sort(-1).values, farthest % LEVEL_SIZE
