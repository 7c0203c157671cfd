"""YOLOv5's rule on paper, and against an obvious loop."""

import math

import numpy as np
import pytest
from drawn_problems import batches, grids, make_priors, make_targets
from every_assigner import one_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from yolov5_loops import pairs, shape_iou

from boxmatch.assign import YOLOv5Ratio
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import REASONS, Targets

SQUARE = one_level_priors(4, 4, 8, [(8, 8)])  # prior 4 · row + column


def around(x: float, y: float, width: float, height: float | None = None) -> list[float]:
    height = width if height is None else height
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def one_image(*boxes: list[float]) -> Targets:
    return Targets.from_lists([list(boxes)], [[0] * len(boxes)])


def learned(*boxes: list[float], priors: Priors = SQUARE, **options) -> list[int]:
    return YOLOv5Ratio(**options)(priors, one_image(*boxes)).pairs.prior.tolist()


@pytest.mark.parametrize(
    ("x", "y", "priors"),
    [
        (10, 10, [1, 4, 5]),  # a quarter into cell (1, 1): the one before and the one above
        (14, 14, [5, 6, 9]),  # three quarters: the one after and the one below
        (14, 10, [1, 5, 6]),
        (12, 12, [5]),  # in the middle there is no nearer neighbour
        (12, 10, [1, 5]),
        (16, 12, [5, 6]),  # on the border between two cells: both
        (8, 12, [5]),  # but not where only a whole cell is left before it
        (24, 12, [6, 7]),
        (7, 7, [0, 1, 4]),
        (2, 2, [0]),  # no neighbour beyond the grid
        (30, 30, [15]),
        (25, 4, [2, 3]),
        (-50, 4, [0]),  # outside: the nearest cell
        (4, 99, [12]),
        (32, 32, [15]),
    ],
)
def test_the_centres_cell_and_its_nearer_neighbours_learn_the_box(x, y, priors):
    assert learned(around(x, y, 8)) == priors


@pytest.mark.parametrize(("offset", "priors"), [(0.0, [5]), (0.5, [1, 4, 5]), (1.0, [1, 4, 5, 6, 9])])
def test_the_offset_widens_the_neighbourhood(offset, priors):
    assert learned(around(10, 10, 8), offset=offset) == priors


@pytest.mark.parametrize(
    ("width", "height", "matches"),
    [(8, 8, True), (31.75, 8, True), (32, 8, False), (2.25, 8, True), (2, 8, False), (2.25, 31.75, True)],
)
def test_both_sides_differ_by_less_than_the_ratio(width, height, matches):
    assert learned(around(12, 12, width, height)) == ([5] if matches else [])
    assert learned(around(12, 12, height, width)) == ([5] if matches else [])


def test_every_anchor_of_every_level_that_fits_learns():
    priors = AnchorGrid([[(8, 8), (90, 90)], [(20, 20)]], (8, 32))([(4, 4), (1, 1)], "cpu")
    assert learned(around(12, 12, 16), priors=priors) == [2 * 5, 32]


def test_a_prior_may_learn_several_boxes_or_the_one_of_best_shape():
    boxes = [around(12, 12, 16), around(13, 12, 9), around(12, 11, 9)]
    shared = YOLOv5Ratio(offset=0.0)(SQUARE, one_image(*boxes))
    assert shared.pairs.prior.tolist() == [5, 5, 5]
    assert shared.weight.tolist() == shared.score.tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="got 3 for prior 5"):
        shared.gt_index()
    one = YOLOv5Ratio(offset=0.0, resolve="best_iou")(SQUARE, one_image(*boxes), explain=True)
    assert (one.pairs.gt.tolist(), one.pairs.prior.tolist()) == ([1], [5])
    assert one.stats().contested == 1
    assert one.explanation.counts()["lost_to_gt"] == 2


def test_it_explains_itself():
    told = YOLOv5Ratio()(SQUARE, one_image(around(12, 12, 16), around(12, 12, 64)), explain=True).explanation
    assert told.pairs.prior.tolist() == [5, 5]
    assert told.score.tolist() == [-2, -8]
    assert told.threshold.tolist() == [-4, -4]
    assert [REASONS[reason] for reason in told.reason] == ["kept", "below_threshold"]


@given(
    grid=grids(),
    images=batches(),
    ratio=st.sampled_from([1.25, 2.0, 4.0, 50.0]),
    offset=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_it_equals_the_loop(grid, images, ratio, offset) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    found = YOLOv5Ratio(ratio=ratio, offset=offset)(priors, targets).pairs
    flat = [box for boxes in images for box in boxes]  # the rule looks at one box alone
    wanted = pairs(priors, flat, ratio, offset)
    assert list(zip(found.gt.tolist(), found.prior.tolist())) == wanted
    owner = YOLOv5Ratio(ratio=ratio, offset=offset, resolve="best_iou")(priors, targets).gt_index()
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for gt, prior in wanted:
        claim = (-np.float32(shape_iou(flat[gt], priors.wh[prior].tolist())), gt)
        place = (int(targets.image[gt]), prior)
        best[place] = min(best.get(place, (math.inf, -1)), claim)
    rows = [tuple(place) for place in (owner >= 0).nonzero().tolist()]
    assert {place: int(owner[place]) for place in rows} == {place: gt for place, (_, gt) in best.items()}


@pytest.mark.parametrize(
    "arguments", [{"ratio": 1.0}, {"ratio": math.nan}, {"offset": -0.1}, {"offset": 1.5}]
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected ratio above 1 and offset in"):
        YOLOv5Ratio(**arguments)


def test_unknown_words_and_priors_on_no_grid_are_refused():
    with pytest.raises((ValueError, TypeCheckError), match="resolve"):
        YOLOv5Ratio(resolve="any")
    free = Priors.from_boxes(SQUARE.boxes)
    with pytest.raises(ValueError, match="on a grid"):
        YOLOv5Ratio()(free, one_image(around(4, 4, 8)))


def test_it_shows_its_options():
    assert repr(YOLOv5Ratio()) == "YOLOv5Ratio(ratio=4.0, offset=0.5, resolve='all')"
