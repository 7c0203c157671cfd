"""The query for a window of its own for every box and level."""

import torch

from boxmatch.priors import PointGrid
from boxmatch.spatial import blocks

EMPTY = [float("-inf")] * 4


def test_each_level_has_its_own_window_without_its_border():
    priors = PointGrid((8, 16))([(2, 4), (1, 2)])  # centres 4, 12, 20, 28 and 8, 24
    assert priors.index is not None
    windows = torch.tensor([[[4.0, 0.0, 28.0, 8.0], [0.0, 0.0, 16.0, 16.0]], [[3.0, 3.0, 13.0, 13.0], EMPTY]])
    pairs = blocks.between(priors.index, windows)
    assert pairs.gt.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert pairs.prior.tolist() == [1, 2, 8, 0, 1, 4, 5]
    assert blocks.count_between(priors.index, windows).tolist() == [3, 4]


def test_a_window_with_swapped_sides_or_at_infinity_holds_nothing():
    priors = PointGrid((8,))([(3, 3)])
    assert priors.index is not None
    windows = torch.tensor(
        [[[20.0, 0.0, 4.0, 24.0]], [[0.0, 20.0, 24.0, 4.0]], [EMPTY], [[float("inf")] * 4]]
    )
    assert len(blocks.between(priors.index, windows)) == 0
    assert blocks.count_between(priors.index, windows).tolist() == [0, 0, 0, 0]
