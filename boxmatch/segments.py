"""Ragged lists: ranges of uneven length, and reductions over the entries that share a segment number.

A segment is what entries have in common, such as their ground truth or their prior. `segment` holds its
number, in 0 .. count - 1, for each entry; segments without entries are fine. Letters: N entries, S segments.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

MATRIX_BUDGET = 2**22
"""Entries of a padded matrix, some 100 MB with its temporaries. Results do not depend on it."""

FEW_ENTRIES = 2**14
"""Entries of a padded matrix that are worked through in the time of a few calls."""

SAMPLE = 256
"""Entries of a segment that tell where its largest lie. Results do not depend on it."""

LONG_SEGMENT = 2 * SAMPLE
"""Entries from which on a segment is cut down before its largest are looked for."""


def ragged_arange(
    lengths: Int64[Tensor, "S"], first: Int64[Tensor, "S"] | None = None
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"]]:
    """Count through segments of uneven length, one after the other.

    Args:
        lengths: entries of each segment, 0 or more.
        first: where each segment begins to count; 0 if not given.

    Returns:
        segment: the segment of each entry, ascending.
        value: first, first + 1, … in each segment.
    """
    value = concatenated_ranges(torch.zeros_like(lengths) if first is None else first, lengths)
    return torch.repeat_interleave(lengths, output_size=len(value)), value


def concatenated_ranges(first: Int64[Tensor, "S"], lengths: Int64[Tensor, "S"]) -> Int64[Tensor, "N"]:
    """The numbers first, first + 1, … of each segment, one segment after the other.

    Args:
        first: where each segment begins to count.
        lengths: how far it counts, 0 or more.
    """
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(lengths) else 0
    # A running sum of ones with a jump where a segment begins: twice as fast as looking up each segment's
    # shift. A jump leads there from where the segment before would go on; jumps of empty segments add up on
    # one place.
    jump = first - (first + lengths).roll(1)
    jump[:1] = first[:1] - 1
    steps = lengths.new_ones(total + 1).index_add_(0, ends - lengths, jump)
    return steps[:total].cumsum_(0)


def budget_slices(lengths: Int64[Tensor, "S"], budget: int) -> Iterator[slice]:
    """Cut the segments into runs of at most `budget` entries; one that alone has more is a run of its own."""
    if int(lengths.sum()) <= budget:
        yield slice(0, len(lengths))
        return
    begin, size = 0, 0
    # One addition per segment; the groups depend on each other, so this is not a tensor operation.
    for position, length in enumerate(lengths.tolist()):
        if position > begin and size + length > budget:
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
    return values.new_zeros(count).index_add_(0, segment, values)


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
    deviation = values - segment_mean(values, segment, count).index_select(0, segment)
    freedom = segment_lengths(segment, count) - correction
    return (segment_sum(deviation.square(), segment, count) / freedom.clamp(min=1)).sqrt()


def segment_max(values: Shaped[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Shaped[Tensor, "S"]:
    """Maximum of each segment; the lowest value of the type (-inf) for one without entries."""
    lowest = -torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).min
    return values.new_full((count,), lowest).scatter_reduce_(0, segment, values, "amax")


def segment_min(values: Shaped[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Shaped[Tensor, "S"]:
    """Minimum of each segment; the highest value of the type (inf) for one without entries."""
    highest = torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).max
    return values.new_full((count,), highest).scatter_reduce_(0, segment, values, "amin")


def first_by_priority(
    score: Float32[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, tie: Int64[Tensor, "N"]
) -> Bool[Tensor, "N"]:
    """Mark the winner of each segment: the highest score, among equal scores the lowest `tie`.

    Args:
        score: any value but nan, of either sign.
        tie: distinct within a segment, in 0 .. 2^32 - 1; such as the ground truth of each pair where the
            prior is the segment.

    Returns:
        Mask with one winner per segment that has an entry.
    """
    # The bits of a float, those behind the sign flipped for negative ones, are an integer of the same order;
    # adding 0 makes -0 and 0 one. With the tie behind it a single maximum decides.
    bits = (score + 0.0).view(torch.int32)
    # In place, because these lists are long and fresh memory costs more than arithmetic.
    order = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    rank = order.long().mul_(2**32).sub_(tie)
    return rank == segment_max(rank, segment, count).index_select(0, segment)


def segment_topk(
    values: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, k: int | Int64[Tensor, "S"]
) -> Bool[Tensor, "N"]:
    """Mark the k largest values of each segment, equal ones by the lowest position.

    A segment of no more than k entries is kept whole. Long segments are first cut down by
    `segment_contenders`. Segments of similar length are padded into the rows of one matrix and go through
    `topk` together, one matrix per power of two: at most twice the memory, and no sort of the whole list.

    Args:
        values: any value but nan.
        segment: ascending, as in `Pairs.gt`.
        k: one number for all segments or one for each, 0 or more.
    """
    lengths = segment_lengths(segment, count)
    wanted = torch.full_like(lengths, k) if isinstance(k, int) else k
    # Only then is one more look at the list less work than the matrices of its segments.
    if len(values) <= LONG_SEGMENT or int(lengths.max()) <= LONG_SEGMENT:
        return _padded_topk(values, segment, lengths, wanted)
    rows = segment_contenders(values, segment, wanted, lambda rows: values.index_select(0, rows))
    near = segment.index_select(0, rows)
    kept = _padded_topk(values.index_select(0, rows), near, segment_lengths(near, count), wanted)
    return torch.zeros_like(segment, dtype=torch.bool).index_copy_(0, rows, kept)


def segment_contenders(
    bound: Float[Tensor, "N"],
    segment: Int64[Tensor, "N"],
    k: Int64[Tensor, "S"],
    exact: Callable[[Int64[Tensor, "R"]], Float[Tensor, "R"]],
    least: float = -torch.inf,
) -> Int64[Tensor, "M"]:
    """Positions, ascending, of all entries whose exact value may be among the k largest of their segment.

    Some entries of each segment are looked at, evenly spread over it. If k of them have an exact value of t
    or more, an entry whose bound is less than t is not among the k largest: few exact values are needed, and
    few entries are left.

    Args:
        bound: of each entry, any value but nan, not less than its exact value.
        segment: ascending.
        k: of each segment, 0 or more.
        exact: the exact values of the entries at some positions.
        least: entries with an exact value below this are not wanted in any case.
    """
    if not len(bound):
        return segment
    lengths = segment_lengths(segment, len(k))
    spacing = (lengths + SAMPLE - 1) // SAMPLE
    offset = torch.arange(SAMPLE, device=segment.device) * spacing[:, None]  # (S, SAMPLE)
    absent = offset >= lengths[:, None]
    position = offset.add_((lengths.cumsum(0) - lengths)[:, None]).clamp_(max=len(bound) - 1)
    sample = bound.index_select(0, position.flatten()).view_as(position).masked_fill_(absent, -torch.inf)
    most = min(int(k.max()), SAMPLE)
    best = sample.topk(most, dim=1)
    # What a segment has beyond its k, or not at all, is not worth an exact value.
    wanted = (torch.arange(most, device=segment.device) < k[:, None]) & ~best.values.isneginf()
    rows = position.gather(1, best.indices).masked_select(wanted)
    value = torch.full_like(best.values, torch.inf).masked_scatter_(wanted, exact(rows))
    limit = value.amin(1) if most else torch.full_like(lengths, torch.inf, dtype=bound.dtype)
    limit = torch.where(wanted.sum(1) == k, limit, -torch.inf).clamp_(min=least)
    return (bound >= limit.index_select(0, segment)).nonzero().squeeze(1)


def segment_topk_sum(
    values: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int, k: int
) -> Float64[Tensor, "S"]:
    """Sum of the k largest values of each segment, of all if it has fewer; 0 for one without entries.

    Args:
        values: finite.
        segment: ascending.
        k: 1 or more.
    """
    lengths = segment_lengths(segment, count)
    if len(values) > LONG_SEGMENT and int(lengths.max()) > LONG_SEGMENT:
        wanted = torch.full_like(lengths, k)
        rows = segment_contenders(values, segment, wanted, lambda rows: values.index_select(0, rows))
        values, segment = values.index_select(0, rows), segment.index_select(0, rows)
        lengths = segment_lengths(segment, count)
    total = values.new_zeros(count, dtype=torch.float64)
    for rows, _, padded in _padded_rows(values, lengths, lengths > 0):
        largest = padded.topk(min(k, padded.shape[1]), dim=1).values
        total.index_copy_(0, rows, largest.masked_fill_(largest.isneginf(), 0).double().sum(1))
    return total


def _padded_topk(
    values: Float[Tensor, "N"],
    segment: Int64[Tensor, "N"],
    lengths: Int64[Tensor, "S"],
    k: Int64[Tensor, "S"],
) -> Bool[Tensor, "N"]:
    whole = lengths <= k
    mask = whole.index_select(0, segment)
    for rows, position, padded in _padded_rows(values, lengths, ~whole & (k > 0)):
        kept = _row_topk(padded, k.index_select(0, rows))
        mask.index_fill_(0, position.masked_select(kept), True)
    return mask


def _padded_rows(
    values: Float[Tensor, "N"], lengths: Int64[Tensor, "S"], chosen: Bool[Tensor, "S"]
) -> Iterator[tuple[Int64[Tensor, "R"], Int64[Tensor, "R W"], Float[Tensor, "R W"]]]:
    """The chosen segments as rows of matrices, padded with -inf: segments, positions and values."""
    begins = lengths.cumsum(0) - lengths
    for width, rows in _rows_of_similar_length(lengths, chosen):
        column = torch.arange(width, device=values.device)
        position = begins.index_select(0, rows)[:, None] + column  # (R, W)
        padding = column >= lengths.index_select(0, rows)[:, None]
        flat = position.clamp(max=len(values) - 1).flatten()
        padded = values.index_select(0, flat).view_as(position).masked_fill_(padding, -torch.inf)
        yield rows, position, padded


def _rows_of_similar_length(
    lengths: Int64[Tensor, "S"], chosen: Bool[Tensor, "S"]
) -> Iterator[tuple[int, Int64[Tensor, "R"]]]:
    """The chosen segments, put together by the next power of two of their lengths: width and segments.

    Few short ones go with the next longer: another turn would take more time than padding them.
    """
    # frexp is exact where a logarithm may round.
    exponent = torch.frexp((lengths - 1).clamp(min=0).double()).exponent
    powers, counts = (part.tolist() for part in exponent[chosen].unique(return_counts=True))
    lowest, together = 0, 0
    # One turn per power of two, about 15 at most.
    for power, count, longer in zip(powers, counts, [*powers[1:], None]):
        together += count
        if longer is not None and together << longer <= FEW_ENTRIES:
            continue
        rows = (chosen & (exponent >= lowest) & (exponent <= power)).nonzero().squeeze(1)
        for part in rows.split(max(1, MATRIX_BUDGET >> power)):
            yield 2**power, part
        lowest, together = power + 1, 0


def _row_topk(values: Float[Tensor, "R W"], k: Int64[Tensor, "R"]) -> Bool[Tensor, "R W"]:
    """Mask of the k largest of each row, equal ones by the lowest column: padding at the end comes last."""
    largest = values.topk(int(k.max()), dim=1).values
    threshold = largest.gather(1, (k - 1)[:, None])
    kept = values >= threshold
    # A tie across the threshold is rare; only such rows pay for counting through it.
    crowded = (kept.sum(1) > k).nonzero().squeeze(1)
    if len(crowded):
        rows, limit = values.index_select(0, crowded), threshold.index_select(0, crowded)
        greater, equal = rows > limit, rows == limit
        room = (k.index_select(0, crowded) - greater.sum(1))[:, None]
        kept.index_copy_(0, crowded, greater | (equal & (equal.cumsum(1) <= room)))
    return kept
