"""The anchors, and the predicted boxes, nearest to each ground truth by L1 distance.

The distance of two boxes is the sum of the differences of centre x, centre y, width and height in pixels. It
decides in float64: anchors on one diagonal are equally near, and float32 would leave the choice to rounding.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..boxes import xyxy_to_cxcywh
from ..priors import Priors
from ..segments import segment_lengths
from ..spatial import pieces
from ..spatial.index import GridIndex
from ..structures import Targets

GROUPS = 128
"""Groups into which the entries of a row are put to find its smallest: 40 each for the anchors of YOLOF."""

SLACK = 1e-5
"""Of distances and coordinates in float32: they are rounded a handful of times, 6e-8 each."""


def nearest_anchors(
    priors: Priors, targets: Targets, k: int
) -> tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]]:
    """The k priors nearest to each ground truth, nearest first, equal distances by lowest prior.

    Args:
        k: 1 or more; K is less where there are fewer priors.

    Returns:
        Prior and distance.
    """
    index, wanted = priors.index, min(k, len(priors))
    if index is None:
        return nearest_boxes(torch.cat((priors.centers, priors.wh), dim=1)[None], targets, k)
    gts = xyxy_to_cxcywh(targets.boxes).double()
    rank = torch.arange(1, k + 1, device=gts.device)
    cells = (rank[:, None] * rank <= k).nonzero()
    candidates = len(cells) * index.wh.shape[0] * index.wh.shape[1]

    def part(piece: slice) -> tuple[Tensor, Tensor]:
        prior, distance = _candidates(index, gts[piece], cells, k)
        prior, order = prior.sort(dim=1)
        distance, order = distance.gather(1, order).sort(dim=1, stable=True)
        return prior.gather(1, order[:, :wanted]), distance[:, :wanted]

    prior, distance = pieces.in_pieces(torch.full_like(targets.image, candidates), part)
    return prior, distance


def _candidates(
    index: GridIndex, gts: Float64[Tensor, "G 4"], cells: Int64[Tensor, "C 2"], k: int
) -> tuple[Int64[Tensor, "G N"], Float64[Tensor, "G N"]]:
    """The anchors that can be among the k nearest, and their distance; inf where the grid has none.

    Order the columns by their distance to the centre, and the rows. The cell in the i-th column and the j-th
    row has i · j - 1 others that are as near or nearer. So with any one anchor only cells with i · j <= k can
    be among the k nearest: 8 cells for k = 4, wherever the centre lies.

    Args:
        cells: the i and j of these cells, counted from 0.
    """
    column, apart_x = _lines_by_distance(index.xs, index.width, gts[:, 0], k)
    row, apart_y = _lines_by_distance(index.ys, index.height, gts[:, 1], k)
    in_column, in_row = cells.unbind(1)
    cell = row[..., in_row] * index.width[:, None, None] + column[..., in_column]  # (L, G, C)
    apart = apart_x[..., in_column] + apart_y[..., in_row]
    anchor = torch.arange(index.wh.shape[1], device=gts.device)
    shape = (index.wh[:, None].double() - gts[:, None, 2:]).abs().sum(-1)  # (L, G, A)
    shape.masked_fill_((anchor >= index.anchors[:, None])[:, None], torch.inf)
    first = index.start[:, None, None] + cell * index.anchors[:, None, None]
    prior = first[..., None] + anchor  # (L, G, C, A)
    distance = apart[..., None] + shape[:, :, None]
    return prior.transpose(0, 1).flatten(1), distance.transpose(0, 1).flatten(1)


def _lines_by_distance(
    lines: Float[Tensor, "L W"], length: Int64[Tensor, "L"], center: Float64[Tensor, "G"], k: int
) -> tuple[Int64[Tensor, "L G K"], Float64[Tensor, "L G K"]]:
    """The k lines of each level nearest to each centre, nearest first, and their distance; inf beyond."""
    centers = center.expand(len(lines), -1).contiguous()  # (L, G)
    lines = lines.double()
    after = torch.searchsorted(lines, centers)
    # k before the centre and k after it: the nearest k are among them.
    line = (after - k).clamp_(min=0)[..., None] + torch.arange(2 * k, device=lines.device)
    missing = line >= length[:, None, None]
    line.clamp_(max=lines.shape[1] - 1)
    apart = lines.gather(1, line.flatten(1)).view_as(line).sub_(centers[..., None]).abs_()
    apart, order = apart.masked_fill_(missing, torch.inf).sort(stable=True)
    return line.gather(2, order[..., :k]), apart[..., :k]


def nearest_boxes(
    boxes_cxcywh: Float[Tensor, "B P 4"], targets: Targets, k: int
) -> tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]]:
    """The k predicted boxes of its image nearest to each ground truth, nearest first, ties by lowest prior.

    Predictions may lie anywhere, so all of an image are compared with each of its boxes, a bounded number at
    a time. The float32 distances only tell which boxes to look at again.

    Args:
        boxes_cxcywh: of every image, or of one that stands for all.
        k: 1 or more; K is less where there are fewer priors.

    Returns:
        Prior and distance.
    """
    images, count = boxes_cxcywh.shape[:2]
    wanted = min(k, count)
    if not len(targets) or not count:
        empty = targets.image.new_zeros(len(targets), wanted)
        return empty, empty.double()
    image = targets.image if images > 1 else torch.zeros_like(targets.image)
    columns = boxes_cxcywh.permute(2, 0, 1).contiguous()  # (4, B, P)
    gts = xyxy_to_cxcywh(targets.boxes).T.contiguous()  # (4, G)
    slack = SLACK * targets.boxes.abs().amax(1, keepdim=True)
    rows = min(len(targets), max(pieces.cached_budget(image.device) // count, 1))
    # Fresh memory costs more than the arithmetic in it: taken once for all pieces.
    room = (columns.new_empty(rows, count), columns.new_empty(rows, count))

    def part(piece: slice) -> tuple[Tensor, Tensor]:
        distance = _distances(columns, image[piece], gts[:, piece], room)
        gt, prior = _shortlist(distance, wanted, slack[piece])
        place = image[piece].index_select(0, gt).mul_(count).add_(prior)
        box = columns.flatten(1).index_select(1, place).double()
        x, y, width, height = box.sub_(gts[:, piece].index_select(1, gt)).abs_()
        chosen = _first_of_each(gt, x + y + width + height, prior, len(distance), wanted)
        return prior[chosen], (x + y + width + height)[chosen]

    parts = [part(slice(start, start + rows)) for start in range(0, len(targets), rows)]
    prior, apart = (torch.cat(column) for column in zip(*parts))
    return prior, apart


def _distances(
    columns: Float[Tensor, "4 B P"],
    image: Int64[Tensor, "g"],
    gts: Float[Tensor, "4 g"],
    room: tuple[Tensor, Tensor],
) -> Float[Tensor, "g P"]:
    """Distance of every box of its image to each ground truth, worked out in `room`."""
    distance, apart = (part[: len(image)] for part in room)
    torch.index_select(columns[0], 0, image, out=distance).sub_(gts[0, :, None]).abs_()
    for column, of_gt in zip(columns[1:], gts[1:]):
        distance.add_(torch.index_select(column, 0, image, out=apart).sub_(of_gt[:, None]).abs_())
    return distance


def _shortlist(
    distance: Float[Tensor, "g P"], wanted: int, slack: Float[Tensor, "g 1"]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Row and column of all entries that may be among the `wanted` smallest of their row, and a few more.

    Put every n-th entry of a row into one group: there are at least `wanted` entries no larger than the
    `wanted`-th of the groups' minima, and all of them lie in groups whose minimum is no larger. Minima are
    many times faster than a `topk`, or a comparison, of the whole row.
    """
    count = distance.shape[1]
    groups = min(count, max(GROUPS, wanted))
    deep, rest = divmod(count, groups)
    least = distance[:, : deep * groups].unflatten(1, (deep, groups)).amin(1)
    least[:, :rest] = torch.minimum(least[:, :rest], distance[:, deep * groups :])
    limit = least.topk(wanted, dim=1, largest=False).values[:, -1:]
    limit = limit * (1 + SLACK) + slack
    row, group = (least <= limit).nonzero().unbind(1)
    column = group[:, None] + groups * torch.arange(deep + (rest > 0), device=row.device)
    inside = column < count
    place = (row[:, None] * count + column).masked_fill_(~inside, 0)
    near = distance.flatten().index_select(0, place.flatten()).view_as(place) <= limit[row]
    entry, step = near.logical_and_(inside).nonzero().unbind(1)
    return row[entry], column[entry, step]


def _first_of_each(
    gt: Int64[Tensor, "N"],
    distance: Float64[Tensor, "N"],
    prior: Int64[Tensor, "N"],
    gts: int,
    wanted: int,
) -> Int64[Tensor, "g K"]:
    """Positions of the `wanted` entries of each ground truth that come first by distance, then prior."""
    order = prior.argsort()
    for key in (distance, gt):  # few entries: three sorts are nothing beside the distances
        order = order[key[order].argsort(stable=True)]
    lengths = segment_lengths(gt, gts)
    first = (lengths.cumsum(0) - lengths)[:, None]
    return order[first + torch.arange(wanted, device=gt.device)]
