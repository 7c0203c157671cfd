"""Points in windows, against all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.spatial import pieces
from boxmatch.spatial.windows import Raster, points_in_windows


def listed(raster: Raster, points, point_room, windows, window_room, rooms) -> list[tuple[int, int]]:
    parts = points_in_windows(raster, (points[:, 0], points[:, 1]), point_room, windows, window_room, rooms)
    return [pair for point, window in parts for pair in zip(point.tolist(), window.tolist())]


def problem(seed: int, points: int = 60, windows: int = 25, rooms: int = 3) -> tuple:
    random = torch.Generator().manual_seed(seed)
    places = torch.rand((points, 2), generator=random) * 140 - 20  # some lie outside the raster
    places[::7] = places[::7].round()
    corner = torch.rand((windows, 2), generator=random) * 120 - 20
    size = torch.rand((windows, 2), generator=random) * 60 - 10  # some are swapped
    return (
        places,
        torch.randint(rooms, (points,), generator=random).int(),
        torch.cat((corner, corner + size), 1),
        torch.randint(rooms, (windows,), generator=random),
        rooms,
    )


def inside(points, point_room, windows, window_room, rooms) -> set[tuple[int, int]]:
    x, y = points[:, None].unbind(2)
    x1, y1, x2, y2 = windows.unbind(1)
    meets = (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2) & (point_room[:, None] == window_room)
    return set(map(tuple, meets.nonzero().tolist()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), side=st.sampled_from([1, 2, 7, 32]))
def test_every_point_in_a_window_is_listed_once(seed: int, side: int) -> None:
    drawn = problem(seed)
    found = listed(Raster(0.0, 0.0, 100.0, 80.0, side), *drawn)
    assert len(found) == len(set(found))
    assert inside(*drawn) <= set(found)


def test_points_far_from_all_windows_are_not_looked_at() -> None:
    points = torch.tensor([[10.0, 10.0], [90.0, 90.0]])
    room = torch.zeros(2, dtype=torch.int64)
    windows = torch.tensor([[5.0, 5.0, 15.0, 15.0], [30.0, 30.0, 20.0, 40.0]])
    assert listed(Raster(0.0, 0.0, 100.0, 100.0, 10), points, room.int(), windows, room, 1) == [(0, 0)]
    assert listed(Raster(0.0, 0.0, 100.0, 100.0, 10), points, room.int(), windows, room + 1, 2) == []


@pytest.mark.parametrize("budget", [1, 7, 40])
def test_small_pieces_list_the_same_pairs(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, raster = problem(3), Raster(0.0, 0.0, 100.0, 100.0, 8)
    whole = sorted(listed(raster, *drawn))
    monkeypatch.setattr(pieces, "PAIR_BUDGET", budget)
    assert sorted(listed(raster, *drawn)) == whole


def test_coordinates_that_fit_no_integer_are_held_at_the_border() -> None:
    raster = Raster(0.0, 0.0, 100.0, 100.0, 10)
    values = torch.tensor([-torch.inf, -3e38, 0.0, 99.9, 100.0, 3e38, torch.inf])
    assert raster.column(values).tolist() == [0, 0, 0, 9, 9, 9, 9]
    assert raster.row(values).tolist() == [0, 0, 0, 9, 9, 9, 9]


def test_a_raster_without_extent_has_all_in_one_bin() -> None:
    assert Raster(5.0, 5.0, 5.0, 5.0, 4).column(torch.tensor([5.0])).tolist() == [0]
