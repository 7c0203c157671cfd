"""Heat maps of the weights of one box."""

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from pictures import as_array, grey

from boxmatch import AnchorGrid, DualWeight, Priors, Targets
from boxmatch.priors import PointGrid
from boxmatch.structures import Assignment, Predictions
from boxmatch.visualize import draw_weights

TARGETS = Targets.from_lists([[[4, 4, 44, 52], [40, 40, 63, 63], [1, 1, 3, 3]]], [[0, 1, 0]])
POINTS = PointGrid((8, 16))([(8, 8), (4, 4)])


def ask() -> Assignment:
    random = torch.Generator().manual_seed(0)
    shape = (1, len(POINTS))
    reach = torch.rand((*shape, 2), generator=random) * 24 + 4
    boxes = torch.cat((POINTS.centers - reach, POINTS.centers + reach), -1)
    logits = torch.randn((*shape, 2), generator=random)
    return DualWeight()(POINTS, TARGETS, Predictions(logits, torch.zeros((*shape, 4)), boxes))


def heat(axis) -> PolyCollection:
    (cells,) = [c for c in axis.collections if isinstance(c, PolyCollection)]
    return cells


def test_every_pair_of_the_box_is_a_cell_in_the_colour_of_its_number():
    assignment = ask()
    q = DualWeight().membership(POINTS, TARGETS, assignment.pairs)
    figure = draw_weights(grey(), TARGETS, assignment, POINTS, 0, extra={"bag": q}, title="a box")
    panels = np.array(figure.axes[:6]).reshape(2, 3)  # two levels × three numbers; then the scales
    mine = assignment.pairs.gt == 0
    level = POINTS.level[assignment.pairs.prior]
    for column, numbers in enumerate((q, assignment.weight, assignment.neg_weight)):
        for row in range(2):
            expected = numbers[mine & (level == row)].double().numpy()
            cells = heat(panels[row, column])
            assert np.array_equal(np.asarray(cells.get_array()), expected)
            assert cells.get_clim() == (0, pytest.approx(float(numbers[mine].max())))
            assert f"sum {expected.sum():.3g}" in panels[row, column].get_title()
    first = POINTS.centers[assignment.pairs.prior[mine & (level == 1)][0]].numpy()
    corners = heat(panels[1, 0]).get_paths()[0].vertices
    assert np.array_equal(corners.min(0), first - 8) and np.array_equal(corners.max(0), first + 8)
    assert [axis.get_title().split("\n")[0] for axis in panels[0]] == [
        "bag",
        "positive weight",
        "negative weight",
    ]
    assert len(np.unique(as_array(figure).reshape(-1, 3), axis=0)) > 50


def test_anchors_of_a_cell_share_it_side_by_side():
    priors = AnchorGrid((((10.0, 10.0), (16.0, 16.0)),), (16,))([(4, 4)])
    targets = Targets.from_lists([[[0, 0, 16, 16]]], [[0]])
    everything = Predictions(
        torch.zeros(1, len(priors), 1), torch.zeros(1, len(priors), 4), priors.boxes[None]
    )
    assignment = DualWeight()(priors, targets, everything)
    assert assignment.pairs.prior.tolist() == [0, 1]
    paths = heat(draw_weights(grey(), targets, assignment, priors, 0).axes[0]).get_paths()
    assert [path.vertices[:, 0].min() for path in paths] == [0, 8]
    assert [path.vertices[:, 0].max() for path in paths] == [8, 16]


def test_a_box_without_a_pair_is_drawn_empty():
    figure = draw_weights(grey(), TARGETS, ask(), POINTS, 2)
    assert len(heat(figure.axes[0]).get_paths()) == 0
    assert "no place learns this box" in figure.axes[0].get_title()
    assert heat(figure.axes[0]).get_clim()[1] == 1.0
    as_array(figure)


def test_a_row_that_does_not_exist_and_free_priors_are_refused():
    assignment = ask()
    with pytest.raises(ValueError, match=r"box in 0 \.\. 2, got 3"):
        draw_weights(grey(), TARGETS, assignment, POINTS, 3)
    with pytest.raises(ValueError, match="priors on a grid"):
        draw_weights(grey(), TARGETS, assignment, Priors.from_boxes(POINTS.boxes), 0)
