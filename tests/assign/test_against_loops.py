"""The grid methods against slow double-precision loops, over random grids, boxes and thresholds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_oracle import candidates

from boxmatch.assign import AllGrid, NearbyGrid, SingleGrid
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Targets

METHODS = {"single_grid": SingleGrid, "nearby_grid": NearbyGrid, "all_grid": AllGrid}
ROUNDING = 1e-5
"""IoUs this near to the threshold or to each other may fall either way in single precision."""


@st.composite
def grids(draw: st.DrawFn) -> tuple:
    """One or two levels from 1 × 1 to 5 × 4 cells: anchors (one to three per cell), strides, sizes."""
    strides = draw(st.sampled_from([(8,), (8, 16), (4, 32)]))
    sizes = [(draw(st.integers(1, 5)), draw(st.integers(1, 4))) for _ in strides]
    count = draw(st.integers(1, 3))
    sides = st.integers(3, 90)
    return [[(draw(sides), draw(sides)) for _ in range(count)] for _ in strides], strides, sizes


def make_priors(anchors: list, strides: tuple, sizes: list) -> Priors:
    """Outside the strategy, because the type checker draws random numbers of its own."""
    return AnchorGrid(anchors, strides)(sizes, "cpu")


@st.composite
def batches(draw: st.DrawFn) -> list:
    """Up to three images with up to four boxes inside, across and outside the picture, or twice."""
    quarter = st.integers(-40, 200).map(lambda n: n / 4)  # exact in both precisions
    side = st.one_of(st.integers(1, 8), st.integers(8, 600)).map(lambda n: n / 4)
    images = []
    for _ in range(draw(st.integers(0, 3))):
        corners = draw(st.lists(st.tuples(quarter, quarter, side, side), max_size=4))
        boxes = [[x, y, x + w, y + h] for x, y, w, h in corners]
        if boxes and draw(st.booleans()):
            boxes.append(boxes[0])
        images.append(boxes)
    return images


def make_targets(images: list) -> Targets:
    """One class."""
    return Targets.from_lists(images, [[0] * len(boxes) for boxes in images])


@pytest.mark.parametrize("method", METHODS)
@given(grid=grids(), images=batches(), threshold=st.sampled_from([0.0, 0.0625, 0.1, 0.3, 0.6]))
@settings(max_examples=60, deadline=None)
def test_owners_are_those_of_the_loops(method: str, grid: tuple, images: list, threshold: float) -> None:
    priors, targets = make_priors(*grid), make_targets(images)
    owner = METHODS[method](match_iou_thres=threshold)(priors, targets).gt_index()
    wanted = candidates(method, priors, targets)
    strict = method == "all_grid"
    for image in range(targets.batch_size):
        for prior in range(len(priors.boxes)):
            rivals = wanted.get((image, prior), [])
            got = int(owner[image, prior])
            best = max((iou for _, iou in rivals), default=-1.0)
            if got < 0:
                assert best < threshold + ROUNDING or (strict and best == threshold)
                continue
            iou = dict(rivals)[got]
            assert iou > best - ROUNDING
            assert iou > threshold - ROUNDING
            assert not (strict and iou == 0)
            box = targets.boxes[got].tolist()
            assert not any(gt < got and targets.boxes[gt].tolist() == box for gt, _ in rivals)


@pytest.mark.parametrize("method", METHODS)
@given(grid=grids(), images=batches())
@settings(max_examples=30, deadline=None)
def test_the_random_pick_is_one_of_the_candidates_on_exactly_the_same_priors(
    method: str, grid: tuple, images: list
) -> None:
    priors, targets = make_priors(*grid), make_targets(images)
    best = METHODS[method]()(priors, targets)
    random = METHODS[method](filter_by_max_iou=False)(priors, targets)
    assert ((best.gt_index() >= 0) == (random.gt_index() >= 0)).all()
    assert best.candidates is not None
    allowed = set(zip(best.candidates.gt.tolist(), best.candidates.prior.tolist()))
    assert set(zip(random.pairs.gt.tolist(), random.pairs.prior.tolist())) <= allowed
