"""The query for the priors nearest to a box's centre.

Letters as in the package, and: S lines of a window, M = S + 2 with one more on either side, C = S · S cells
of a window, K wanted cells of all levels. Boxes come last in the tensors: arithmetic along a short last axis
takes three times as long on a CPU.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from ..boxes import box_centers
from ..segments import concatenated_ranges
from ..structures import Pairs
from .index import GridIndex
from .pieces import in_pieces


@dataclass(frozen=True)
class _Wanted:
    """What every box wants of each level.

    Args:
        cells: number of cells, the nearest ones.
        withheld: anchors of the farthest of these cells that are one too many.
        level: level of each of the cells.
        most: largest of `cells`.
        priors: number of priors of all levels.
        one_anchor: whether a cell is a prior, on every level.
    """

    cells: Int64[Tensor, "L"]
    withheld: Int64[Tensor, "L"]
    level: Int64[Tensor, "K"]
    most: int
    priors: int
    one_anchor: bool


def nearest(index: GridIndex, boxes: Float[Tensor, "G 4"], k: int, whole_cells: bool = False) -> Pairs:
    """The k priors of each level whose centre is nearest to the box's, equal distances to the lowest prior.

    Squared distances are compared in float64, on float32 centres. Less than 2^15 px from the grid float64
    tells apart all distances that differ, so the order is the true one.

    Args:
        whole_cells: list all anchors of the k nearest cells instead.
    """
    limit = k * index.anchors if whole_cells else torch.full_like(index.anchors, k)
    priors = torch.minimum(index.height * index.width * index.anchors, limit)  # (L,)
    cells = (priors + index.anchors - 1) // index.anchors
    most, count, anchors = torch.stack((cells.max(), priors.sum(), index.anchors.max())).tolist()
    level = torch.arange(len(index), device=boxes.device).repeat_interleave(cells)
    wanted = _Wanted(cells, cells * index.anchors - priors, level, most, count, anchors == 1)
    # The diameter of a disc of so many cells, one and a half more, rounded up: nearly always enough.
    side = math.ceil(2 * math.sqrt(most / math.pi) + 1.5)
    prior = _search(index, box_centers(boxes).double(), wanted, side)
    gt = torch.arange(len(boxes), device=boxes.device)
    return Pairs(gt.repeat_interleave(count, output_size=prior.numel()), prior.flatten())


def _search(
    index: GridIndex, centers: Float64[Tensor, "G 2"], wanted: _Wanted, side: int
) -> Int64[Tensor, "G N"]:
    """The wanted priors of each centre, looked for in a window of `side` × `side` cells per level."""
    candidates = torch.full((len(centers),), len(index) * side**2, device=centers.device)

    def part(piece: slice) -> tuple[Tensor]:
        return (_search_windows(index, centers[piece], wanted, side),)

    return in_pieces(candidates, part, cached=True)[0]


def _search_windows(
    index: GridIndex, centers: Float64[Tensor, "G 2"], wanted: _Wanted, side: int
) -> Int64[Tensor, "G N"]:
    """What a window leaves out is no nearer than the first row and column left out.

    Centres for which that does not settle it (far outside the grid, or with exact ties) are looked at again,
    with windows twice as large.
    """
    x, y = centers.T.contiguous()
    left, distance_x = _lines_around(index.xs, index.step[:, 0], index.width, x, side)
    top, distance_y = _lines_around(index.ys, index.step[:, 1], index.height, y, side)
    inner_x, inner_y = distance_x[1:-1], distance_y[1:-1]  # (S, L, G)
    distance = (inner_y[:, None] + inner_x).flatten(0, 1)  # (C, L, G)
    farthest = _farthest_wanted(distance, wanted)
    left_out = torch.minimum(
        torch.minimum(distance_x[0], distance_x[-1]) + inner_y.amin(0),
        torch.minimum(distance_y[0], distance_y[-1]) + inner_x.amin(0),
    )
    chosen = distance <= farthest
    crowded = chosen.sum(0) > wanted.cells[:, None]
    unsettled = (farthest >= left_out).any(0)
    any_crowded, any_unsettled = torch.stack((crowded.any(), unsettled.any())).tolist()
    if any_crowded:
        _leave_out_ties(chosen, distance, farthest, wanted, crowded)
    first = index.start[:, None] + (top * index.width[:, None] + left) * index.anchors[:, None]
    prior = _list_chosen(index, first, chosen, distance == farthest, wanted, side)
    if any_unsettled:
        rows = unsettled.nonzero().squeeze(1)
        prior[rows] = _search(index, centers[rows], wanted, 2 * side)
    return prior


def _lines_around(
    lines: Float[Tensor, "L W"],
    step: Float64[Tensor, "L"],
    length: Int64[Tensor, "L"],
    center: Float64[Tensor, "G"],
    side: int,
) -> tuple[Int64[Tensor, "L G"], Float64[Tensor, "M L G"]]:
    """The first of `side` lines of each level around each centre, and the squared distances of all.

    The distances begin with that of the line before the first and end with that of the line after the last;
    inf where the level has no such line.
    """
    begin = ((center - lines[:, :1]) / step[:, None] - (side - 1) / 2).round_()
    begin = begin.minimum((length - side)[:, None]).clamp_(min=0).long()
    padded = pad(lines.double(), (1, side), value=torch.inf)
    place = begin + torch.arange(0, padded.numel(), padded.shape[1], device=lines.device)[:, None]
    place = place + torch.arange(side + 2, device=lines.device)[:, None, None]
    distance = padded.flatten().index_select(0, place.flatten()).view_as(place)
    return begin, distance.sub_(center).square_()


def _farthest_wanted(distance: Float64[Tensor, "C L G"], wanted: _Wanted) -> Float64[Tensor, "L G"]:
    """Distance of the last cell that each box wants of each level; inf where the window has not as many."""
    ascending = distance.topk(wanted.most, dim=0, largest=False).values
    return ascending[wanted.cells - 1, torch.arange(len(wanted.cells), device=distance.device)]


def _leave_out_ties(
    chosen: Bool[Tensor, "C L G"],
    distance: Float64[Tensor, "C L G"],
    farthest: Float64[Tensor, "L G"],
    wanted: _Wanted,
    crowded: Bool[Tensor, "L G"],
) -> None:
    """Of equally far cells keep the first, as many as are wanted; changes `chosen` where it is `crowded`."""
    level, box = crowded.nonzero().unbind(1)
    distance, farthest = distance[:, level, box], farthest[level, box]
    nearer, equal = distance < farthest, distance == farthest
    room = wanted.cells[level] - nearer.sum(0)
    chosen[:, level, box] = nearer | (equal & (equal.cumsum(0) <= room))


def _list_chosen(
    index: GridIndex,
    first: Int64[Tensor, "L G"],
    chosen: Bool[Tensor, "C L G"],
    farthest: Bool[Tensor, "C L G"],
    wanted: _Wanted,
    side: int,
) -> Int64[Tensor, "G N"]:
    """The priors of the chosen cells of each box, ascending.

    Args:
        first: lowest prior of each window.
        farthest: the cells that are as far as the last one wanted.
    """
    number = torch.arange(side, device=first.device)
    offset = (number[:, None] * index.width[:, None, None] + number).flatten(1) * index.anchors[:, None]
    chosen = chosen.permute(2, 1, 0).contiguous()  # (G, L, C)
    prior = offset.expand(chosen.shape).masked_select(chosen).view(len(chosen), len(wanted.level))
    prior += first.T.index_select(1, wanted.level)
    if wanted.one_anchor:
        return prior
    last = chosen & farthest.permute(2, 1, 0)
    last &= last.flip(2).cumsum(2).flip(2) == 1
    anchors = index.anchors[:, None] - wanted.withheld[:, None] * last
    prior = concatenated_ranges(prior.flatten(), anchors.masked_select(chosen))
    return prior.view(len(chosen), wanted.priors)
