"""Which points lie in which windows, for points on no grid.

The centres of predicted boxes lie where the network puts them, so the grid of the priors says nothing about
them. A coarse raster over the picture does: each window is noted in the bins it touches, and each point looks
its own bin up. Points that share no bin with a window cost one look, whatever the number of windows; nothing
is sorted but the notes.

Points and windows belong to rooms, such as their image and their size class, and never meet across rooms.
Letters: M points, W windows, E notes (window in bin), N pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from ..segments import budget_slices, concatenated_ranges, ragged_arange
from . import pieces


@dataclass(frozen=True)
class Raster:
    """Bins over a rectangle, as many rows as columns; places outside it belong to the nearest bin.

    The choice has an effect on time only.

    Args:
        left, top, right, bottom: the rectangle, in pixels.
        side: number of rows, and of columns.
    """

    left: float
    top: float
    right: float
    bottom: float
    side: int

    def column(self, x: Float[Tensor, "*N"]) -> Int32[Tensor, "*N"]:
        """Column of the bin of each x; never decreases with x, however it is rounded."""
        return self._bin(x, self.left, self.right)

    def row(self, y: Float[Tensor, "*N"]) -> Int32[Tensor, "*N"]:
        """Row of the bin of each y."""
        return self._bin(y, self.top, self.bottom)

    def _bin(self, values: Tensor, low: float, high: float) -> Tensor:
        per_px = self.side / max(high - low, 1.0)
        # Held within the raster before it becomes an integer: coordinates of a wild network fit no integer.
        return (values - low).mul_(per_px).clamp_(0, self.side - 1).int()


def points_in_windows(
    raster: Raster,
    points: tuple[Float[Tensor, "M"], Float[Tensor, "M"]],
    point_room: Int32[Tensor, "M"],
    windows: Float[Tensor, "W 4"],
    window_room: Int64[Tensor, "W"],
    rooms: int,
) -> Iterator[tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]]:
    """List every pair of a point and a window of one room where the point lies in the window, and some more.

    Args:
        points: x and y in pixels.
        point_room: in 0 .. rooms - 1; as int32, because points are many.
        windows: xyxy in pixels; those with swapped corners are empty.
        window_room: in 0 .. rooms - 1.

    Yields:
        Point and window of each pair that shares a bin, in no particular order, no pair twice; as many at a
        time as `pieces.cached_budget` allows.
    """
    first_column, last_column = raster.column(windows[:, ::2]).long().unbind(1)
    first_row, last_row = raster.row(windows[:, 1::2]).long().unbind(1)
    empty = (windows[:, 2:] < windows[:, :2]).any(1)
    columns = (last_column - first_column + 1).masked_fill_(empty, 0)
    rows = (last_row - first_row + 1).masked_fill_(empty, 0)
    place = (point_room * raster.side).add_(raster.row(points[1])).mul_(raster.side)
    place.add_(raster.column(points[0]))
    for part in budget_slices(rows * columns, pieces.PAIR_BUDGET):
        run, row = ragged_arange(rows[part], first_row[part])
        run = run + (part.start or 0)
        first = (window_room[run] * raster.side + row) * raster.side + first_column[run]
        length = columns[run]
        bins = concatenated_ranges(first, length)
        order = bins.argsort()
        window = run.repeat_interleave(length, output_size=len(bins))[order]
        counts = torch.bincount(bins, minlength=rooms * raster.side**2)
        yield from _meetings(place, window, counts)


def _meetings(
    place: Int32[Tensor, "M"], window: Int64[Tensor, "E"], counts: Int64[Tensor, "S"]
) -> Iterator[tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]]:
    """Pair each point with the windows noted in its bin; the notes are ordered by bin, `counts` per bin."""
    point = (counts > 0).index_select(0, place).nonzero().squeeze(1)
    bin_of_point = place.index_select(0, point)
    lengths = counts.index_select(0, bin_of_point)
    begins = counts.cumsum(0).index_select(0, bin_of_point) - lengths
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    # Cut where the budget is used up: by a search, because points are many.
    budget = pieces.cached_budget(place.device)
    cuts = list(range(budget, total, budget))
    found = torch.searchsorted(ends, torch.tensor(cuts, device=ends.device)).tolist() if cuts else []
    bounds = [0, *found, len(point)]
    for start, end in pairwise(bounds):
        note = concatenated_ranges(begins[start:end], lengths[start:end])
        listed = point[start:end].repeat_interleave(lengths[start:end], output_size=len(note))
        yield listed, window.index_select(0, note)
