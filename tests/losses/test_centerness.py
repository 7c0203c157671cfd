"""Centerness by hand, against a loop, and where it has no middle to speak of."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.losses.centerness import centerness

BOX = [0.0, 0.0, 8.0, 4.0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((4.0, 2.0), 1.0),
        ((2.0, 2.0), math.sqrt(2 / 6)),
        ((2.0, 1.0), math.sqrt(2 / 6 * 1 / 3)),
        ((0.0, 2.0), 0.0),
        ((4.0, 4.0), 0.0),
        ((-1.0, 2.0), 0.0),
        ((-1.0, -1.0), 0.0),
        ((90.0, 2.0), 0.0),
    ],
)
def test_it_is_one_in_the_middle_and_nothing_on_the_border_and_beyond(place, value):
    assert centerness(torch.tensor([place]), torch.tensor([BOX])).item() == pytest.approx(value)


@pytest.mark.parametrize("box", [[3.0, 3.0, 3.0, 3.0], [3.0, 0.0, 3.0, 9.0], [5.0, 5.0, 1.0, 1.0]])
def test_a_box_without_extent_has_no_middle(box):
    assert centerness(torch.tensor([[3.0, 3.0]]), torch.tensor([box])).tolist() == [0.0]


def test_no_pairs_have_no_values():
    assert centerness(torch.zeros(0, 2), torch.zeros(0, 4)).shape == (0,)


coordinates = st.floats(-1e4, 1e4, width=32)


@given(rows=st.lists(st.tuples(*[coordinates] * 6), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_it_equals_the_formula_and_stays_between_nothing_and_one(rows):
    table = torch.tensor(rows)
    values = centerness(table[:, :2], table[:, 2:])
    assert bool(((values >= 0) & (values <= 1)).all())
    for value, (x, y, x1, y1, x2, y2) in zip(values.tolist(), table.tolist()):
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        inside = min(left, top, right, bottom) > 0
        ratio = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom) if inside else 0.0
        assert value == pytest.approx(math.sqrt(ratio), rel=1e-4, abs=1e-3)
