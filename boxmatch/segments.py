"""Ragged lists: ranges of uneven length, and reductions over the entries that share a segment number.

A segment is what entries have in common: their ground truth, their prior, both with a level. `segment` holds one
number in 0 .. count-1 per entry; segments without entries are fine. Letters: N entries, S segments.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor


def ragged_arange(
    lengths: Int64[Tensor, "S"], first: Int64[Tensor, "S"] | None = None
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Count through segments of uneven length, one after the other.

    Args:
        lengths: entries of each segment, 0 or more.
        first: where each segment's count begins; 0 if not given.

    Returns:
        segment: the segment of each entry, ascending.
        value: first, first + 1, … in each segment.
    """
    total = int(lengths.sum())
    number = torch.arange(len(lengths), device=lengths.device)
    segment = torch.repeat_interleave(number, lengths, output_size=total)
    shift = lengths - lengths.cumsum(0)  # minus the place where the segment begins
    if first is not None:
        shift = shift + first
    return segment, torch.arange(total, device=lengths.device) + shift[segment]


def budget_slices(lengths: Int64[Tensor, "S"], budget: int) -> Iterator[slice]:
    """Cut the segments into consecutive groups of at most `budget` entries, or of one segment that alone has more.

    Nothing is read back from a GPU beyond the total unless the total exceeds the budget.
    """
    if int(lengths.sum()) <= budget:
        yield slice(0, len(lengths))
        return
    begin, size = 0, 0
    # One addition per segment; the groups depend on each other, so this is not a tensor operation.
    for position, length in enumerate(lengths.tolist()):
        if size and size + length > budget:
            yield slice(begin, position)
            begin, size = position, 0
        size += length
    yield slice(begin, len(lengths))


def segment_lengths(segment: Int64[Tensor, "N"], count: int) -> Int64[Tensor, "S"]:
    """Number of entries of each segment."""
    lengths = torch.zeros(count, dtype=torch.int64, device=segment.device)
    return lengths.index_add_(0, segment, torch.ones_like(segment))


def segment_sum(values: Shaped[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Shaped[Tensor, "S"]:
    """Sum of each segment; 0 for one without entries."""
    return values.new_zeros(count).index_add(0, segment, values)


def segment_mean(values: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Float[Tensor, "S"]:
    """Mean of each segment; 0 for one without entries."""
    return segment_sum(values, segment, count) / segment_lengths(segment, count).clamp(min=1)


def segment_std(
    values: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, *, correction: int = 1
) -> Float[Tensor, "S"]:
    """Standard deviation of each segment, in two passes.

    Args:
        correction: 1 divides by n - 1 as `torch.std` does, 0 by n.

    Returns:
        0 where a segment has no more than `correction` entries (`torch.std` has nan there).
    """
    deviation = values - segment_mean(values, segment, count)[segment]
    freedom = segment_lengths(segment, count) - correction
    return (segment_sum(deviation.square(), segment, count) / freedom.clamp(min=1)).sqrt()


def segment_max(values: Shaped[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Shaped[Tensor, "S"]:
    """Maximum of each segment; the lowest value of the type (-inf) for one without entries."""
    lowest = -torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).min
    return values.new_full((count,), lowest).scatter_reduce(0, segment, values, "amax")


def segment_min(values: Shaped[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Shaped[Tensor, "S"]:
    """Minimum of each segment; the highest value of the type (inf) for one without entries."""
    highest = torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).max
    return values.new_full((count,), highest).scatter_reduce(0, segment, values, "amin")


def first_by_priority(
    score: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, tie: Int64[Tensor, "N"]
) -> Bool[Tensor, "N"]:
    """Mark the winner of each segment: the highest score, among equal scores the lowest `tie`.

    Args:
        score: any value but nan; nan never wins.
        tie: distinct within a segment, such as the ground truth of each pair where the prior is the segment.

    Returns:
        Mask with one winner per segment that has an entry.
    """
    best = score == segment_max(score, segment, count)[segment]
    # Only the few entries with the best score of their segment go on.
    rivals = best.nonzero().squeeze(1)
    rival_segment, rival_tie = segment[rivals], tie[rivals]
    best[rivals] = rival_tie == segment_min(rival_tie, rival_segment, count)[rival_segment]
    return best


def segment_topk(
    values: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, k: int | Int64[Tensor, "S"]
) -> Bool[Tensor, "N"]:
    """Mark the k largest values of each segment, equal values to the lowest position; all of a shorter segment.

    Segments of similar length are padded into the rows of one matrix and go through `topk` together, a matrix per
    power of two: at most twice the memory, and no sort of the whole list.

    Args:
        values: any value but nan.
        segment: ascending, as in `Pairs.gt`.
        k: one number for all segments or one for each, 0 or more.
    """
    lengths = segment_lengths(segment, count)
    wanted = torch.full_like(lengths, k) if isinstance(k, int) else k
    begins = lengths.cumsum(0) - lengths
    mask = (lengths <= wanted)[segment]
    # The exponent of the next power of two; frexp is exact where a logarithm may round.
    exponent = torch.frexp((lengths - 1).clamp(min=0).double()).exponent
    exponent = exponent.masked_fill((lengths <= wanted) | (wanted == 0), -1)
    # One turn per power of two, about 15 at most: rows of one matrix share a width.
    for power in exponent.unique().tolist():
        if power >= 0:
            rows = (exponent == power).nonzero().squeeze(1)
            column = torch.arange(2**power, device=values.device)
            position = begins[rows, None] + column  # (rows, 2 ** power)
            padding = column >= lengths[rows, None]
            padded = values[position.clamp(max=len(values) - 1)].masked_fill(padding, -torch.inf)
            mask[position[_row_topk(padded, padding, wanted[rows])]] = True
    return mask


def _row_topk(values: Tensor, padding: Tensor, k: Tensor) -> Tensor:
    """Mask of the k largest of each row, equal values to the lowest column; 1 <= k <= entries that are no padding."""
    largest = values.topk(int(k.max()), dim=1).values
    threshold = largest.gather(1, (k - 1)[:, None])
    greater = values > threshold
    equal = (values == threshold) & ~padding
    needed = k - greater.sum(1)
    # A tie across the threshold is rare; only such rows pay for counting through it.
    crowded = (equal.sum(1) > needed).nonzero().squeeze(1)
    equal[crowded] &= equal[crowded].cumsum(1) <= needed[crowded, None]
    return greater | equal
