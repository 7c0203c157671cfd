"""The query for the priors nearest to a box's centre."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..boxes import box_centers
from ..segments import ragged_arange
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces


def nearest(index: GridIndex, boxes: Float[Tensor, "G 4"], k: int) -> Pairs:
    """The k priors of each level whose centre is nearest to the box's, equal distances to the lowest prior.

    Order the columns by their distance to the centre, and the rows. At least (i + 1)(j + 1) - 1 other cells are as
    near as the cell in the i-th column and the j-th row, so only cells with (i + 1)(j + 1) <= n can be among the n
    nearest: 23 for n = 9, wherever the centre lies, outside the grid too.

    Squared distances are compared in float64, on float32 centres. Less than 2^15 px from the grid float64 tells apart
    all distances that differ, so the order is the true one.
    """
    wanted = (index.height * index.width * index.anchors).clamp(max=k)  # (L,) priors
    cells = (wanted + index.anchors - 1) // index.anchors  # (L,)
    most = int(cells.max())
    rank = torch.arange(1, most + 1, device=boxes.device)
    column_rank, row_rank = (rank[:, None] * rank <= most).nonzero().unbind(1)  # (C,)

    def part(piece: slice) -> tuple[Tensor, Tensor]:
        center_x, center_y = box_centers(boxes[piece]).double().unbind(-1)
        column, distance_x = _by_distance(index.xs, index.width, center_x, most)  # (g, L, most)
        row, distance_y = _by_distance(index.ys, index.height, center_y, most)
        distance = distance_x[..., column_rank] + distance_y[..., row_rank]  # (g, L, C), squared
        cell = row[..., row_rank] * index.width[:, None] + column[..., column_rank]
        cell, last = _nearest_cells(distance, cell, cells)  # (g, L, most)
        # The farthest cell may give only some of its anchors.
        count = torch.where(last, (wanted - (cells - 1) * index.anchors)[:, None], index.anchors[:, None])
        count = count * (torch.arange(most, device=boxes.device) < cells[:, None])
        first = index.start[:, None] + cell * index.anchors[:, None]
        slot, prior = ragged_arange(count.flatten(), first.flatten())
        return slot // (len(index) * most) + (piece.start or 0), prior

    gt, prior = in_pieces(
        (len(column_rank) * len(index)) * torch.ones_like(boxes[:, 0], dtype=torch.int64), part
    )
    return Pairs(gt, prior)


def _by_distance(
    lines: Float[Tensor, "L W"], length: Int64[Tensor, "L"], center: Float64[Tensor, "G"], count: int
) -> tuple[Int64[Tensor, "G L K"], Float64[Tensor, "G L K"]]:
    """The nearest lines of each level in order of distance, equal distances to the lower one, and these squared.

    Lines are evenly spaced: the nearest comes first, then they alternate between the side on which the centre lies
    and the other, and when one side has run out the rest is on the larger.
    """
    lines = lines.double()
    after = torch.searchsorted(
        lines, center.expand(len(lines), -1).contiguous()
    ).T  # (G, L) first line not before
    last = length - 1
    before, after = (after - 1).clamp(min=0), torch.minimum(after, last)
    level = torch.arange(len(lines), device=lines.device)
    gap_before, gap_after = (center[:, None] - lines[level, line] for line in (before, after))
    nearest_line = torch.where(gap_before.abs() <= gap_after.abs(), before, after)
    # On the line itself the lower neighbour comes first.
    upward = center[:, None] > lines[level, nearest_line]
    below, above = nearest_line, last - nearest_line
    both = torch.minimum(below, above)[..., None]
    rank = torch.arange(count, device=lines.device)
    step = torch.where(rank <= 2 * both, (rank + 1) // 2, rank - both)
    up = torch.where(rank <= 2 * both, (rank % 2 == 1) == upward[..., None], (above > below)[..., None])
    line = nearest_line[..., None] + torch.where(up, step, -step)
    missing = rank > last[:, None]
    line = line.masked_fill(missing, 0)
    distance = (lines[level[:, None], line] - center[:, None, None]).square()
    return line, distance.masked_fill(missing, torch.inf)


def _nearest_cells(
    distance: Float64[Tensor, "G L C"], cell: Int64[Tensor, "G L C"], count: Int64[Tensor, "L"]
) -> tuple[Int64[Tensor, "G L K"], Tensor]:
    """The `count` nearest of each level's candidates in ascending order, and a mask of the farthest; rest is filler."""
    most = int(count.max())
    place = (count - 1)[:, None].expand(len(distance), -1, 1)
    threshold = distance.topk(most, largest=False).values.gather(2, place)
    # Nearer cells keep their number, those at the threshold queue behind all of them, the others never get in.
    turn = 2**40 * ((distance >= threshold).long() + (distance > threshold))
    chosen = (cell + turn).topk(most, largest=False).values  # (G, L, K), ascending
    farthest = chosen.gather(2, place)
    chosen = torch.where(chosen <= farthest, chosen % 2**40, 2**40)
    cells = chosen.sort(-1).values
    return cells, cells == farthest % 2**40
