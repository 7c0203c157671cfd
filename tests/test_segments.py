"""Ragged lists against loops over their segments."""

import math
import statistics
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from boxmatch import segments
from boxmatch.segments import (
    budget_slices,
    concatenated_ranges,
    first_by_priority,
    ragged_arange,
    segment_contenders,
    segment_lengths,
    segment_max,
    segment_mean,
    segment_min,
    segment_std,
    segment_sum,
    segment_topk,
    segment_topk_sum,
)

lengths_lists = st.lists(st.integers(0, 9), max_size=12)
# Few distinct values, so that ties are common; infinities are legal scores.
scores = st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 0.25, 3.0, math.inf])


@st.composite
def ragged(draw: st.DrawFn, values: st.SearchStrategy[float]) -> list[list[float]]:
    """A list of values for each of up to twelve segments, some of them empty."""
    return draw(st.lists(st.lists(values, max_size=20), max_size=12))


def flatten(lists: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and segment numbers of a ragged list."""
    values = torch.tensor([value for part in lists for value in part], dtype=torch.float32)
    segment = torch.tensor([number for number, part in enumerate(lists) for _ in part], dtype=torch.int64)
    return values, segment


@given(lengths_lists)
def test_ragged_arange_counts_through_every_segment(lengths):
    segment, offset = ragged_arange(torch.tensor(lengths, dtype=torch.int64))
    assert segment.tolist() == [number for number, length in enumerate(lengths) for _ in range(length)]
    assert offset.tolist() == [place for length in lengths for place in range(length)]


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 6)), max_size=12))
def test_ranges_begin_where_they_are_told(ranges):
    first, lengths = torch.tensor(ranges, dtype=torch.int64).reshape(-1, 2).unbind(1)
    expected = [number for begin, length in ranges for number in range(begin, begin + length)]
    assert concatenated_ranges(first, lengths).tolist() == expected
    assert ragged_arange(lengths, first)[1].tolist() == expected


@given(lengths_lists, st.integers(1, 12))
def test_slices_cover_all_segments_in_order_within_the_budget(lengths, budget):
    slices = list(budget_slices(torch.tensor(lengths, dtype=torch.int64), budget))
    positions = [position for piece in slices for position in range(len(lengths))[piece]]
    assert positions == list(range(len(lengths)))
    for piece in slices:
        assert sum(lengths[piece]) <= budget or len(lengths[piece]) == 1


def test_slices_are_as_few_as_the_order_allows():
    slices = list(budget_slices(torch.tensor([2, 2, 2, 9, 1, 1]), 4))
    assert slices == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]


@given(ragged(st.floats(-100, 100, width=32)))
def test_reductions_equal_those_of_each_list(lists):
    values, segment = flatten(lists)
    count = len(lists)
    assert segment_lengths(segment, count).tolist() == [len(part) for part in lists]
    assert segment_sum(values, segment, count).tolist() == pytest.approx(
        [math.fsum(part) for part in lists], rel=1e-5, abs=1e-3
    )
    assert segment_mean(values, segment, count).tolist() == pytest.approx(
        [statistics.fmean(part) if part else 0 for part in lists], rel=1e-5, abs=1e-4
    )
    assert segment_max(values, segment, count).tolist() == [max(part, default=-math.inf) for part in lists]
    assert segment_min(values, segment, count).tolist() == [min(part, default=math.inf) for part in lists]


@given(ragged(st.floats(-100, 100, width=32)), st.integers(0, 1))
def test_deviation_is_that_of_torch_and_zero_where_torch_has_none(lists, correction):
    values, segment = flatten(lists)
    expected = [
        torch.tensor(part).double().std(correction=correction).item() if len(part) > correction else 0
        for part in lists
    ]
    result = segment_std(values, segment, len(lists), correction=correction)
    assert result.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_order_of_entries_does_not_matter_to_reductions():
    values, segment = torch.tensor([4.0, 1.0, 2.0, 8.0]), torch.tensor([2, 0, 2, 0])
    assert segment_sum(values, segment, 3).tolist() == [9, 0, 6]
    assert segment_max(values, segment, 3).tolist() == [8, -math.inf, 4]


def test_whole_numbers_are_reduced_as_whole_numbers():
    values, segment = torch.tensor([2**53 + 1, 1]), torch.tensor([0, 2])
    assert segment_sum(values, segment, 3).tolist() == [2**53 + 1, 0, 1]
    assert segment_max(values, segment, 3).tolist() == [2**53 + 1, -(2**63), 1]
    assert segment_min(values, segment, 3).tolist() == [2**53 + 1, 2**63 - 1, 1]


def test_sums_and_means_carry_gradients():
    segment = torch.tensor([0, 0, 2])
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: segment_sum(v, segment, 3), (values,))
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, segment, 3), (values,))


@given(ragged(scores), st.data())
def test_topk_keeps_the_largest_and_of_equal_ones_the_first(lists, data):
    values, segment = flatten(lists)
    each = data.draw(st.lists(st.integers(0, 8), min_size=len(lists), max_size=len(lists)))
    for k in (each, [3] * len(lists)):
        expected = []
        for part, wanted in zip(lists, k):
            best = sorted(range(len(part)), key=lambda place: (-part[place], place))[:wanted]
            expected += [place in best for place in range(len(part))]
        given_k = 3 if k == [3] * len(lists) else torch.tensor(k, dtype=torch.int64)
        assert segment_topk(values, segment, len(lists), given_k).tolist() == expected
        with patch.multiple(segments, LONG_SEGMENT=1, SAMPLE=3, FEW_ENTRIES=0):
            assert segment_topk(values, segment, len(lists), given_k).tolist() == expected


@pytest.mark.parametrize("budget", [1, 100, 2**22])
def test_topk_of_long_and_short_segments_equals_topk_of_each(budget, monkeypatch):
    monkeypatch.setattr(segments, "MATRIX_BUDGET", budget)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 700, 0, 33, 64, 65, 12, 13, 14, 2000])
    segment, _ = ragged_arange(lengths)
    # A hundred distinct values: many ties across the threshold.
    values = torch.randint(0, 100, (len(segment),), generator=generator).float()
    mask = segment_topk(values, segment, len(lengths), 13)
    for part, kept in zip(values.split(lengths.tolist()), mask.split(lengths.tolist())):
        order = part.sort(descending=True, stable=True).indices[:13]
        assert kept.nonzero().squeeze(1).tolist() == order.sort().values.tolist()


@given(ragged(st.sampled_from([-1.5, 0.0, 0.25, 0.1, 3.0])), st.integers(1, 5))
def test_sum_of_the_largest(lists, k):
    values, segment = flatten(lists)
    rounded = [sorted(part, reverse=True)[:k] for part in (torch.tensor(part).tolist() for part in lists)]
    expected = pytest.approx([sum(part) for part in rounded], abs=1e-12)
    assert segment_topk_sum(values, segment, len(lists), k).tolist() == expected
    with patch.multiple(segments, LONG_SEGMENT=1, SAMPLE=3, FEW_ENTRIES=0, MATRIX_BUDGET=8):
        assert segment_topk_sum(values, segment, len(lists), k).tolist() == expected


@given(ragged(scores), st.data())
def test_contenders_hold_the_largest_whatever_the_bound_hides(lists, data):
    values, segment = flatten(lists)
    slack = data.draw(st.lists(st.integers(0, 4), min_size=len(values), max_size=len(values)))
    k = torch.tensor(data.draw(st.lists(st.integers(0, 8), min_size=len(lists), max_size=len(lists)))).long()
    bound = values + torch.tensor(slack)
    with patch.object(segments, "SAMPLE", 3):
        rows = segment_contenders(bound, segment, k, lambda rows: values[rows], least=-2.0)
    assert (rows.diff() > 0).all()
    largest = segment_topk(values, segment, len(lists), k) & (values >= -2)
    assert set(largest.nonzero().squeeze(1).tolist()) <= set(rows.tolist())
    assert (bound[rows] >= -2).all()


def test_few_contenders_are_left_of_many():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([9000, 40, 20000])
    segment, _ = ragged_arange(lengths)
    values = torch.rand(len(segment), generator=generator)
    looked_at = []

    def exact(rows: torch.Tensor) -> torch.Tensor:
        looked_at.append(len(rows))
        return values[rows]

    rows = segment_contenders(1.01 * values, segment, torch.tensor([10, 10, 10]), exact)
    assert sum(looked_at) == 30
    assert len(rows) < 0.15 * len(values)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 4), scores), max_size=20), st.randoms(use_true_random=False))
def test_the_winner_has_the_highest_score_and_of_equal_ones_the_lowest_tie(entries, random):
    ties = random.sample(range(1000), len(entries))
    segment = torch.tensor([number for number, _ in entries], dtype=torch.int64)
    score = torch.tensor([value for _, value in entries], dtype=torch.float32)
    expected = [
        min(
            (place for place in range(len(entries)) if entries[place][0] == number),
            key=lambda place: (-entries[place][1], ties[place]),
        )
        == own
        for own, (number, _) in enumerate(entries)
    ]
    won = first_by_priority(score, segment, 5, torch.tensor(ties, dtype=torch.int64))
    assert won.tolist() == expected


def test_scores_are_compared_to_their_last_bit():
    close = torch.tensor([1.0, 1.0 + 2**-23, -1.0, -1.0 - 2**-23, 0.0, 1e-45])
    won = first_by_priority(close, torch.tensor([0, 0, 1, 1, 2, 2]), 3, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert won.tolist() == [False, True, True, False, False, True]


def test_nothing_comes_out_of_nothing():
    empty, none = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in ragged_arange(none)] == [0, 0]
    assert list(budget_slices(none, 5)) == [slice(0, 0)]
    assert segment_sum(empty, none, 2).tolist() == [0, 0]
    assert segment_std(empty, none, 2).tolist() == [0, 0]
    assert len(segment_topk(empty, none, 0, 3)) == 0
    assert len(segment_topk(empty, none, 2, 3)) == 0
    assert segment_topk_sum(empty, none, 2, 3).tolist() == [0, 0]
    assert len(segment_contenders(empty, none, torch.tensor([3, 0]), lambda rows: empty[rows])) == 0
    assert len(first_by_priority(empty, none, 2, none)) == 0
