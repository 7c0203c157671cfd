"""Priors of other people's grids: read off their boxes, and refused where there is none."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Level, Targets


def from_torchvision(
    height: int, width: int, cells: list[tuple[int, int]], sides: list[tuple[int, ...]]
) -> Priors:
    """Anchors as RetinaNet asks for them: steps are the picture's size divided by the map's, cut to whole."""
    generator = AnchorGenerator(tuple(sides), ((0.5, 1.0, 2.0),) * len(sides))
    features = [torch.zeros(1, 1, *size) for size in cells]
    boxes = generator(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), features)[0]
    levels = [Level(*size, height // size[0], 3 * len(side)) for size, side in zip(cells, sides)]
    return Priors.from_levels(boxes, levels)


SIDES = [(5, 8), (30,), (64, 101)]
coordinates = st.one_of(st.integers(-40, 260).map(float), st.floats(-60, 300, width=32))
boxes = st.lists(
    st.tuples(coordinates, coordinates, st.floats(1, 200, width=32), st.floats(1, 200, width=32)), max_size=3
)


def make_targets(rows: list) -> Targets:
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in rows]
    return Targets.from_lists([corners], [[0] * len(rows)])


def as_list(pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.gt.tolist(), pairs.prior.tolist()))


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(40, 250), st.integers(40, 250)), boxes)
def test_every_query_works_on_torchvision_anchors(picture, rows):
    height, width = picture
    cells = [(-(-height // s), -(-width // s)) for s in (8, 17, 60)]
    priors, targets = from_torchvision(height, width, cells, SIDES), make_targets(rows)
    free = Priors(priors.boxes, priors.centers, priors.level, priors.stride, (), priors.wh)
    iou = box_iou(targets.boxes, priors.boxes)
    for min_iou in (0.0, 0.3):
        pairs, value = priors.overlaps(targets, min_iou)
        keep = (iou >= min_iou) & (iou > 0)
        assert as_list(pairs) == [tuple(pair) for pair in keep.nonzero().tolist()]
        assert torch.equal(value, iou[keep])
    for query in (
        lambda place: place.best_overlaps(targets)[0],
        lambda place: place.inside(targets),
        lambda place: place.within(targets, 1.5),
    ):
        assert as_list(query(priors)) == as_list(query(free))
    assert as_list(priors.nearest(targets, 9)) == nearest_per_level(priors, targets, 9)
    assert as_list(priors.cells(targets)) == cells_by_distance(priors, targets)


def nearest_per_level(priors: Priors, targets: Targets, k: int) -> list[tuple[int, int]]:
    """In exact arithmetic: torchvision's centres are whole or half numbers."""
    found = []
    for gt, box in enumerate(targets.boxes):
        x, y = ((box[:2] + box[2:]) / 2).double().tolist()
        for level in range(len(priors.levels)):
            rows = (priors.level == level).nonzero().squeeze(1).tolist()
            centers = {prior: priors.centers[prior].tolist() for prior in rows}
            rows.sort(key=lambda p, at=centers: ((at[p][0] - x) ** 2 + (at[p][1] - y) ** 2, p))
            found += [(gt, prior) for prior in sorted(rows[:k])]
    return found


def cells_by_distance(priors: Priors, targets: Targets) -> list[tuple[int, int]]:
    """The anchors of the column and row whose centre is nearest; half-way the second."""
    found = []
    for gt, box in enumerate(targets.boxes):
        x, y = ((box[:2] + box[2:]) / 2).tolist()
        first = 0
        for level in priors.levels:
            part = priors.centers[first : first + len(level)]
            xs = part[:: level.anchors, 0][: level.width].tolist()
            ys = part[:: level.anchors * level.width, 1].tolist()
            column = min(range(len(xs)), key=lambda j, xs=xs: (abs(xs[j] - x), -j))
            row = min(range(len(ys)), key=lambda i, ys=ys: (abs(ys[i] - y), -i))
            cell = first + (row * level.width + column) * level.anchors
            found += [(gt, cell + anchor) for anchor in range(level.anchors)]
            first += len(level)
    return found


def test_a_grid_of_ours_is_read_back():
    priors = AnchorGrid([[(10, 13), (16, 30)], [(33, 23)]], (8, 20), center=0.0, shift=0.5)([(5, 7), (1, 3)])
    again = Priors.from_levels(priors.boxes, priors.levels)
    assert torch.equal(again.centers, priors.centers)
    assert torch.equal(again.level, priors.level) and torch.equal(again.stride, priors.stride)
    assert torch.allclose(again.wh, priors.wh, atol=1e-5)
    assert torch.equal(again.index.step, priors.index.step)


def test_steps_may_differ_in_x_and_y_and_need_not_be_whole():
    x, y = torch.arange(40) * (1000 / 39), torch.arange(30) * 7.3
    y, x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack((x, y), -1).reshape(-1, 2)
    priors = Priors.from_levels(torch.cat((centers - 10.1, centers + 10.1), 1), [Level(30, 40, 8, 1)])
    assert priors.index.step[0].tolist() == pytest.approx([1000 / 39, 7.3], rel=1e-6)
    targets = make_targets([(500.0, 100.0, 30.0, 20.0), (990.0, 3.0, 22.0, 22.0), (1.0, 210.0, 9.0, 500.0)])
    iou = box_iou(targets.boxes, priors.boxes)
    assert as_list(priors.overlaps(targets, 0.1)[0]) == [tuple(p) for p in (iou >= 0.1).nonzero().tolist()]


def grid_of_three() -> tuple[torch.Tensor, list[Level]]:
    return AnchorGrid([[(8, 8), (16, 8)]], (8,))([(3, 4)]).boxes.clone(), [Level(3, 4, 8, 2)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda boxes: boxes[:-1],
        lambda boxes: boxes.flip(0),
        lambda boxes: boxes.index_fill(0, torch.tensor([7]), torch.nan),
        lambda boxes: boxes + torch.eye(len(boxes), 4),
        lambda boxes: boxes.view(3, 4, 2, 4).transpose(0, 1).reshape(-1, 4),
        lambda boxes: boxes.view(3, 4, 2, 4).transpose(1, 2).reshape(-1, 4),
        lambda boxes: boxes[:2].repeat(12, 1),
        lambda boxes: boxes[:, [2, 3, 0, 1]],
        lambda boxes: boxes**1.01,
        lambda boxes: boxes + 2e-6 * torch.arange(len(boxes))[:, None],
    ],
    ids=[
        "count",
        "descending",
        "nan",
        "moved",
        "columns first",
        "anchors first",
        "one place",
        "swapped",
        "uneven",
        "rounded differently",
    ],
)
def test_boxes_on_no_even_grid_are_refused(spoil):
    boxes, levels = grid_of_three()
    assert len(Priors.from_levels(boxes, levels)) == 24
    with pytest.raises(ValueError, match="expected"):
        Priors.from_levels(spoil(boxes), levels)


def test_the_message_names_the_prior_and_where_it_should_be():
    boxes, levels = grid_of_three()
    boxes[9] += 3
    with pytest.raises(ValueError, match=r"prior 9 at \[.*\] instead of \[.*from_boxes"):
        Priors.from_levels(boxes, levels)


def test_no_levels_are_refused():
    with pytest.raises(ValueError, match="expected"):
        Priors.from_levels(torch.zeros(0, 4), [])
