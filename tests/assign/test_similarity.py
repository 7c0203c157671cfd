"""The measures of similarity: on paper, against loops, and the pairs they find on grids."""

import math

import hypothesis.strategies as st
import pytest
import similarity_loops
import torch
from hypothesis import given, settings
from similarity_loops import similarity

from boxmatch.assign.measures import KLD, NWD, Overlap, SimD
from boxmatch.assign.similarity import as_similarity, best_nearby, pair_similarity, similar
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.spatial import pieces
from boxmatch.structures import Targets

NAMES = ["iou", "giou", "diou", "ciou", "nwd", "kld", "simd"]

sides = st.one_of(st.sampled_from([0.5, 8.0, 32.0, 2_000.0]), st.floats(0.5, 200, width=32))
places = st.one_of(st.integers(-10, 40).map(lambda step: 4.0 * step), st.floats(-100, 300, width=32))
shapes = st.tuples(places, places, sides, sides)
levels = st.tuples(
    st.sampled_from([4, 8, 12, 64]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
)
grids = st.lists(levels, min_size=1, max_size=3)


def corners(rows: list) -> torch.Tensor:
    return torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in rows]).reshape(-1, 4)


def make_priors(grid: list) -> Priors:
    strides, heights, widths, anchors = zip(*grid)
    return AnchorGrid(anchors, strides)(list(zip(heights, widths)))


def make_targets(rows: list) -> Targets:
    return Targets.from_lists([corners(rows)], [[0] * len(rows)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iou", 64 / 192),
        ("giou", 64 / 192),  # the box around both is their union
        ("diou", 64 / 192 - 8**2 / (24**2 + 8**2)),
        ("ciou", 64 / 192 - 8**2 / (24**2 + 8**2)),  # of one shape
        ("nwd", math.exp(-8 / 12.8)),
        ("kld", 1 / (1 + 4 * 8**2 / 16**2 / 2)),
        ("simd", math.exp(-8 * 6.13 / (16 + 16))),
    ],
)
def test_two_boxes_of_one_shape_half_over_each_other(name, value):
    gt, other = torch.tensor([[0.0, 0.0, 16.0, 8.0]]), torch.tensor([[8.0, 0.0, 24.0, 8.0]])
    assert pair_similarity(gt, other, name).item() == pytest.approx(value)


def test_kld_is_asked_from_the_ground_truth():
    small, large = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    # Half the sum over both axes of r² - 1 - ln r² for r = 2 and r = 1/2, and of the offset of 4 px.
    assert KLD()(small, large).item() == pytest.approx(1 / (1 + (3 - math.log(4)) + 4 * 4**2 / 8**2))
    assert KLD()(large, small).item() == pytest.approx(1 / (1 + (math.log(4) - 3 / 4) + 4 * 4**2 / 16**2))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), rows=st.lists(st.tuples(shapes, shapes), min_size=1, max_size=5))
def test_values_are_those_of_the_loops(name, rows):
    gts, others = (corners(list(column)) for column in zip(*rows))
    value = pair_similarity(gts, others, name)
    expected = [similarity(name, gt, other) for gt, other in zip(gts.tolist(), others.tolist())]
    assert value.tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6)


def test_constants_are_those_of_the_data():
    gts, others = corners([(10, 10, 8, 20)]), corners([(14, 7, 10, 16)])
    loops = [similarity_loops.nwd, similarity_loops.simd]
    for measure, loop, constants in zip((NWD(40.0), SimD(2.0, 3.0)), loops, ((40.0,), (2.0, 3.0))):
        expected = loop(gts[0].tolist(), others[0].tolist(), *constants)
        assert measure(gts, others).item() == pytest.approx(expected, rel=1e-6)
        assert measure(gts, others).item() != pytest.approx(type(measure)()(gts, others).item(), rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_equal_boxes_are_alike_by_one_and_no_others_by_more(name):
    boxes = corners([(0, 0, 8, 8), (4000, 3.5, 0.5, 700), (-3, 2, 10_000, 10_000)])
    assert pair_similarity(boxes, boxes, name).tolist() == [1.0] * 3
    assert (pair_similarity(boxes, boxes.roll(1, 0), name) < 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_box_has_a_finite_value(name):
    wild = torch.tensor(
        [
            [5.0, 5.0, 5.0, 5.0],
            [5.0, 5.0, 5.0, 90.0],
            [9.0, 9.0, 2.0, 2.0],
            [-1e30, -1e30, 1e30, 1e30],
            [1e30, 0.0, 2e30, 1.0],
            [0.0, 0.0, 1e-30, 1e-30],
            [0.0, 0.0, 10.0, 10.0],
        ]
    )
    count = len(wild)
    value = pair_similarity(wild.repeat_interleave(count, 0), wild.repeat(count, 1), name)
    assert torch.isfinite(value).all()
    assert value.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_value_does_not_depend_on_where_its_pair_stands(name):
    generator = torch.Generator().manual_seed(2)
    gts, others = (corners((100 * torch.rand((203, 4), generator=generator)).tolist()) for _ in range(2))
    whole = pair_similarity(gts, others, name)
    for size in (1, 7, 50):
        parts = [pair_similarity(*part, name) for part in zip(gts.split(size), others.split(size))]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
def test_no_relative_of_the_iou_is_more_than_it(name):
    generator = torch.Generator().manual_seed(4)
    # Many of them inside each other with a shared corner, where both are equal but for rounding.
    gts = torch.rand((20_000, 4), generator=generator).sort(1).values[:, [0, 1, 2, 3]] * 50
    others = torch.cat((gts[:, :2], gts[:, 2:] + torch.rand((20_000, 2), generator=generator)), 1)
    assert (pair_similarity(gts, others, name) <= pair_similarity(gts, others, "iou")).all()


def test_unknown_names_and_constants_out_of_range_are_refused():
    with pytest.raises(ValueError, match="expected metric in"):
        as_similarity("cosine", "metric")
    for make in (lambda: NWD(0.0), lambda: SimD(-1.0, 2.0), lambda: SimD(2.0, math.inf)):
        with pytest.raises(ValueError, match="above 0"):
            make()


def exhaustive(priors: Priors, targets: Targets, name: str) -> torch.Tensor:
    """(G, P) similarities."""
    gts = targets.boxes.repeat_interleave(len(priors), 0)
    return pair_similarity(gts, priors.boxes.repeat(len(targets), 1), name).view(len(targets), len(priors))


def as_list(pairs) -> list[list[int]]:
    return torch.stack((pairs.gt, pairs.prior), 1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    grid=grids,
    rows=st.lists(shapes, min_size=1, max_size=3),
    least=st.lists(st.sampled_from([-1.0, 0.0, 1e-6, 0.1, 0.4, 0.7, 0.95, 1.0]), min_size=3, max_size=3),
)
def test_similar_lists_the_pairs_that_are_similar_enough(name, grid, rows, least):
    priors, targets = make_priors(grid), make_targets(rows)
    value = exhaustive(priors, targets, name)
    threshold = torch.tensor(least)[: len(rows)]
    wanted = (value >= threshold[:, None]) & (value > 0)
    for place in (priors, Priors.from_boxes(priors.boxes)):
        pairs, listed = similar(place, targets, threshold, as_similarity(name))
        assert as_list(pairs) == wanted.nonzero().tolist()
        assert torch.equal(listed, value[wanted])


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), grid=grids, shape=shapes, data=st.data())
def test_a_pair_is_found_when_its_own_similarity_is_asked_for(name, grid, shape, data):
    """The windows are computed otherwise than the values and must not cut off what rounding lets pass."""
    priors = make_priors(grid)
    prior = data.draw(st.integers(0, len(priors) - 1))
    x, y = priors.centers[prior].tolist()
    # Moved along one axis only, the pair lies on the very border of what is listed.
    shift = data.draw(st.floats(0, 40, width=32))
    for dx, dy in ((shift, 0), (0, shift)):
        targets = make_targets([(x + dx, y + dy, shape[2], shape[3])])
        value = exhaustive(priors, targets, name)
        if value[0, prior] > 0:
            pairs = similar(priors, targets, value[:, prior], as_similarity(name))[0]
            assert [0, prior] in as_list(pairs)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), grid=grids, rows=st.lists(shapes, min_size=1, max_size=3))
def test_the_best_nearby_is_the_similarity_of_a_prior_and_mostly_the_greatest(name, grid, rows):
    priors, targets = make_priors(grid), make_targets(rows)
    value = exhaustive(priors, targets, name)
    nearby = best_nearby(priors, targets, as_similarity(name))
    assert (value == nearby[:, None]).any(1).all()
    greatest = value.amax(1)
    if name not in ("diou", "ciou"):
        assert torch.allclose(nearby, greatest, rtol=1e-3, atol=1e-5)
    assert torch.equal(best_nearby(Priors.from_boxes(priors.boxes), targets, as_similarity(name)), greatest)


@pytest.mark.parametrize("name", NAMES)
def test_small_pieces_and_nothing_at_all(name, monkeypatch):
    priors = AnchorGrid([[(10, 13), (33, 23)], [(64, 64)]], (8, 16))([(12, 10), (6, 5)])
    generator = torch.Generator().manual_seed(3)
    targets = make_targets((100 * torch.rand((20, 4), generator=generator) + 1).tolist())
    least, measure = torch.full((20,), 0.2), as_similarity(name)
    for place in (priors, Priors.from_boxes(priors.boxes)):
        whole, value = similar(place, targets, least, measure)
        best = best_nearby(place, targets, measure)
        monkeypatch.setattr(pieces, "PAIR_BUDGET", 100)
        pairs, cut = similar(place, targets, least, measure)
        assert as_list(pairs) == as_list(whole) and torch.equal(cut, value)
        assert torch.equal(best_nearby(place, targets, measure), best)
        monkeypatch.undo()
        assert len(similar(place, targets.select(slice(0, 0)), least[:0], measure)[0]) == 0
    nothing = Priors.from_boxes(torch.zeros(0, 4))
    assert len(similar(nothing, targets, least, measure)[0]) == 0
    assert best_nearby(nothing, targets, measure).tolist() == [-math.inf] * 20


def test_the_names_are_the_measures_with_published_constants():
    assert as_similarity("nwd") == NWD(constant=12.8)
    assert as_similarity("simd") == SimD(m=6.13, n=4.59)
    assert as_similarity("kld") == KLD()
    assert as_similarity("ciou") == Overlap("ciou")
    assert as_similarity(NWD(20.0)) == NWD(20.0)
