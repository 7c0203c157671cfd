"""The nearest priors: whole cells, ties, and boxes for which the first window is too small."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Targets

GRID = AnchorGrid([[(8, 8)], [(10, 20), (30, 12), (5, 5)], [(64, 64), (32, 96)]], (8, 16, 32))
PRIORS = GRID([(6, 11), (3, 6), (1, 3)])


def at(*centers: tuple[float, float]) -> Targets:
    """One image with boxes of 2 px around the given places."""
    return Targets.from_lists([[[x - 1, y - 1, x + 1, y + 1] for x, y in centers]], [[0] * len(centers)])


def by_loop(priors: Priors, targets: Targets, k: int, whole_cells: bool) -> list[list[int]]:
    """Prior by prior: the nearest of each level, equal distances to the lowest."""
    found = []
    for x1, y1, x2, y2 in targets.boxes.tolist():
        x, y, first, rows = (x1 + x2) / 2, (y1 + y2) / 2, 0, []
        for level in priors.levels:
            centers = priors.centers[first : first + len(level)].tolist()
            far = [((px - x) ** 2 + (py - y) ** 2, first + place) for place, (px, py) in enumerate(centers)]
            rows += [place for _, place in sorted(far)[: k * (level.anchors if whole_cells else 1)]]
            first += len(level)
        found.append(sorted(rows))
    return found


quarter_pixels = st.integers(-400, 800).map(lambda n: n / 4)


@pytest.mark.parametrize("whole_cells", [False, True])
@given(
    centers=st.lists(st.tuples(quarter_pixels, quarter_pixels), min_size=1, max_size=6),
    k=st.integers(1, 80),
)
@settings(max_examples=60, deadline=None)
def test_every_box_gets_the_nearest_priors_of_each_level(whole_cells: bool, centers: list, k: int) -> None:
    targets = at(*centers)
    pairs = PRIORS.nearest(targets, k, whole_cells=whole_cells)
    count = PRIORS.count_nearest(k, whole_cells=whole_cells)
    assert pairs.gt.tolist() == [gt for gt in range(len(centers)) for _ in range(count)]
    assert pairs.prior.view(len(centers), count).tolist() == by_loop(PRIORS, targets, k, whole_cells)


def test_a_whole_cell_brings_all_its_anchors() -> None:
    assert PRIORS.nearest(at((4, 4)), 1, whole_cells=True).prior.tolist() == [0, 66, 67, 68, 120, 121]
    assert PRIORS.nearest(at((4, 4)), 1).prior.tolist() == [0, 66, 120]


def test_of_four_cells_equally_far_the_first_in_reading_order_are_taken() -> None:
    priors = AnchorGrid([[(8, 8)]], (8,))([(4, 5)])
    assert priors.nearest(at((16, 16)), 3).prior.tolist() == [6, 7, 11]
    assert priors.nearest(at((16, 16)), 1).prior.tolist() == [6]


@pytest.mark.parametrize(
    "center", [(40.0, -3000.0), (-3000.0, 20.0), (5000.0, 4000.0), (44.0, 24.0), (0.0, 0.0)]
)
def test_boxes_near_and_far_are_served_in_one_call(center: tuple[float, float]) -> None:
    targets = at((20.0, 21.0), center, (70.0, 3.0))
    pairs = PRIORS.nearest(targets, 9)
    assert pairs.prior.view(3, -1).tolist() == by_loop(PRIORS, targets, 9, False)


def test_so_far_away_that_all_distances_round_to_one_the_first_priors_are_taken() -> None:
    huge = Targets.from_lists([[[1e29, 1e29, 3e29, 3e29]]], [[0]])
    assert PRIORS.nearest(huge, 2).prior.tolist() == [0, 1, 66, 67, 120, 121]


def test_priors_on_no_grid_are_cells_of_their_own() -> None:
    free = Priors.from_boxes(torch.tensor([[0.0, 0, 2, 2], [8, 0, 10, 2], [4, 0, 6, 2]]))
    assert free.nearest(at((0.5, 1)), 2, whole_cells=True).prior.tolist() == [0, 2]
    assert free.count_nearest(2, whole_cells=True) == 2
    assert free.count_nearest(5) == 3
