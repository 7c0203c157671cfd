"""Max-IoU on paper, against a loop for every option, and against torchvision's matcher."""

import hypothesis.strategies as st
import numpy
import pytest
import torch
from every_assigner import one_level_priors, random_batch, random_boxes, two_level_priors
from hypothesis import given, settings
from max_iou_loops import max_iou
from pycocotools import mask as coco
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from boxmatch.assign import NWD, MaxIoU, iou_match
from boxmatch.assign.iou_match import iou_matches
from boxmatch.assign.similarity import pair_similarity
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.spatial import pieces
from boxmatch.structures import REASONS, Targets

ROW = one_level_priors(1, 4, 8, [(8, 8)])  # squares side by side: x from 0 to 8, 8 to 16, …; y from 0 to 8


def one_image(*boxes: list[float]) -> Targets:
    return Targets.from_lists([list(boxes)], [[0] * len(boxes)])


def owners(targets: Targets, **options) -> list[int]:
    return MaxIoU(**options)(ROW, targets).gt_index()[0].tolist()


TWO_CELLS = [0.0, 0.0, 16.0, 8.0]  # IoU 1/2 with the first two priors
BETWEEN = [4.0, 0.0, 12.0, 8.0]  # 1/3 with the first two
LONG = [16.0, 0.0, 27.0, 8.0]  # 8/11 with the third, 3/16 with the fourth
SHORT_OF_TWO = [1.0, 0.0, 16.0, 8.0]  # 7/16 with the first, 8/15 with the second
IN_THE_FIRST = [2.0, 2.0, 6.0, 6.0]  # 1/4 with the first
FAR = [90.0, 0.0, 98.0, 8.0]


def test_a_prior_learns_takes_no_part_or_is_background():
    assert owners(one_image(LONG), positive=0.7, negative=0.1) == [-1, -1, 0, -2]
    assert owners(one_image(LONG), positive=0.7, negative=0.2) == [-1, -1, 0, -1]


def test_an_iou_that_equals_a_threshold_reaches_it():
    two = one_image(TWO_CELLS)
    assert owners(two, positive=0.5, negative=0.5, low_quality="off") == [0, 0, -1, -1]
    assert owners(two, positive=0.6, negative=0.5, low_quality="off") == [-2, -2, -1, -1]


def test_below_the_lower_end_of_negative_priors_take_no_part():
    assert owners(one_image(LONG), positive=0.7, negative=(0.1, 0.3)) == [-2, -2, 0, -1]
    assert owners(one_image(LONG), positive=0.7, negative=(0.2, 0.3)) == [-2, -2, 0, -2]
    empty = Targets.from_lists([[], [LONG]], [[], [0]])
    assert MaxIoU(0.7, (0.2, 0.3))(ROW, empty).gt_index()[0].tolist() == [-1] * 4


def test_all_best_priors_of_a_box_are_rescued_if_they_are_good_enough():
    assert owners(one_image(BETWEEN)) == [0, 0, -1, -1]
    assert owners(one_image(BETWEEN), low_quality="off") == [-1] * 4
    assert owners(one_image(BETWEEN), min_positive=0.34) == [-1] * 4
    assert owners(one_image(BETWEEN), min_positive=0.33) == [0, 0, -1, -1]


def test_a_rescued_prior_goes_to_its_rescuer_or_keeps_its_own_best_box():
    both = one_image(SHORT_OF_TWO, IN_THE_FIRST)
    for positive, negative in ((0.4, 0.4), (0.6, 0.5)):  # the first prior reaches the threshold, or does not
        options = {"positive": positive, "negative": negative}
        assert owners(both, **options, low_quality="reassign") == [1, 0, -1, -1]
        assert owners(both, **options, low_quality="keep_argmax") == [0, 0, -1, -1]
    assert owners(both, positive=0.6, negative=0.5, low_quality="off") == [-1, -2, -1, -1]


def test_the_best_prior_of_two_boxes_goes_to_the_one_it_overlaps_more_in_either_order():
    assert owners(one_image(TWO_CELLS, IN_THE_FIRST)) == [0, 0, -1, -1]
    assert owners(one_image(IN_THE_FIRST, TWO_CELLS)) == [1, 1, -1, -1]
    assert owners(one_image(TWO_CELLS, TWO_CELLS)) == [0, 0, -1, -1]


@pytest.mark.parametrize("low_quality", ["reassign", "keep_argmax"])
def test_a_box_that_overlaps_no_prior_rescues_none(low_quality):
    assert owners(one_image(FAR), low_quality=low_quality) == [-1] * 4
    # torchvision gives it everything that overlaps no box.
    assert Matcher(0.5, 0.4, True)(box_iou(torch.tensor([FAR]), ROW.boxes)).tolist() == [0] * 4


def test_the_presets_are_the_published_settings():
    settings = {
        "retinanet": (0.5, 0.4, 0.0, "reassign"),
        "rpn": (0.7, 0.3, 0.3, "reassign"),
        "rcnn": (0.5, 0.5, 0.0, "off"),
    }
    for name, values in settings.items():
        preset = getattr(MaxIoU, name)()
        assert (preset.positive, preset.negative, preset.min_positive, preset.low_quality) == values


@pytest.mark.parametrize(
    "arguments",
    [
        {"positive": 0.3, "negative": 0.4},
        {"positive": 1.1},
        {"negative": 0.0},
        {"negative": (0.3, 0.2)},
        {"negative": (-0.1, 0.2)},
        {"min_positive": -0.1},
        {"min_positive": float("nan")},
        {"ignore_threshold": 0.2},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        MaxIoU(**arguments)


def test_what_became_of_each_candidate_is_told():
    assigner = MaxIoU(0.5, 0.3)
    explanation = assigner(ROW, one_image(SHORT_OF_TWO, BETWEEN, TWO_CELLS), explain=True).explanation
    told = {
        (gt, prior): REASONS[reason]
        for gt, prior, reason in zip(
            explanation.pairs.gt.tolist(), explanation.pairs.prior.tolist(), explanation.reason.tolist()
        )
    }
    assert told == {
        (0, 0): "below_threshold",
        (0, 1): "kept",
        (1, 0): "lost_to_gt",  # rescued, and better met by the third box
        (1, 1): "lost_to_gt",
        (2, 0): "kept",
        (2, 1): "lost_to_gt",
    }
    assert explanation.threshold.tolist() == [0.5] * 6
    between = assigner(ROW, one_image(SHORT_OF_TWO), explain=True).explanation
    assert [REASONS[reason] for reason in between.reason.tolist()] == ["ignored", "kept"]


# Exact in float32, so that loop and tensors compare with the same numbers.
thresholds = st.sampled_from([0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0])
quarters = st.integers(-40, 240).map(lambda n: n / 4)
box = st.tuples(quarters, quarters, st.integers(1, 300), st.integers(1, 300)).map(
    lambda row: [row[0], row[1], row[0] + row[2] / 4, row[1] + row[3] / 4]
)
images = st.lists(st.lists(box, max_size=4), min_size=1, max_size=2)
sides = st.integers(2, 90)
grids = st.lists(
    st.tuples(
        st.sampled_from([4, 8, 16]),
        st.integers(1, 5),
        st.integers(1, 5),
        st.lists(st.tuples(sides, sides), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=2,
)


def make_priors(grid: list) -> Priors:
    strides, heights, widths, anchors = zip(*grid)
    return AnchorGrid(anchors, strides)(list(zip(heights, widths)))


def make_targets(boxes: list) -> Targets:
    return Targets.from_lists(boxes, [[0] * len(rows) for rows in boxes])


def tables(priors: Priors, targets: Targets, similarity: str) -> list[torch.Tensor]:
    """Similarity of every box of an image to every prior."""
    result = []
    for image in range(targets.batch_size):
        boxes = targets.boxes[targets.image == image]
        pairs = boxes.repeat_interleave(len(priors), 0), priors.boxes.repeat(len(boxes), 1)
        result.append(pair_similarity(*pairs, similarity).view(len(boxes), len(priors)))
    return result


@settings(max_examples=50, deadline=None)
@given(
    grid=grids,
    boxes=images,
    limits=st.lists(thresholds, min_size=3, max_size=3).map(sorted),
    with_low=st.booleans(),
    low_quality=st.sampled_from(["reassign", "keep_argmax", "off"]),
    min_positive=st.sampled_from([0.0, 0.125, 0.5]),
    similarity=st.sampled_from(["iou", "iou", "giou", "diou", "ciou", "nwd", "kld", "simd"]),
)
def test_owners_are_those_of_the_loop(grid, boxes, limits, with_low, low_quality, min_positive, similarity):
    low, high, positive = limits
    negative = (low, high) if with_low and low < high else high
    priors, targets = make_priors(grid), make_targets(boxes)
    first, expected = 0, []
    for table in tables(priors, targets, similarity):
        if len(table):
            rows = max_iou(table.tolist(), positive, negative, low_quality, min_positive)
            expected.append([row + first if row >= 0 else row for row in rows])
        else:
            expected.append([-1] * len(priors))
        first += len(table)
    assigner = MaxIoU(
        positive, negative, low_quality=low_quality, min_positive=min_positive, similarity=similarity
    )
    for place in (priors, Priors.from_boxes(priors.boxes)):
        assert assigner(place, targets).gt_index().tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    grid=grids,
    boxes=images,
    limits=st.sampled_from([(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (0.1, 0.1)]),
    low_quality=st.sampled_from(["keep_argmax", "off"]),
)
def test_it_is_torchvisions_matcher(grid, boxes, limits, low_quality):
    priors = make_priors(grid)
    # Boxes that overlap nothing are the one case in which the two differ by intention.
    boxes = [[row for row in rows if box_iou(torch.tensor([row]), priors.boxes).any()] for rows in boxes]
    targets = make_targets(boxes)
    found = MaxIoU(*limits, low_quality=low_quality)(priors, targets).gt_index()
    matcher = Matcher(*limits, allow_low_quality_matches=low_quality != "off")
    first = 0
    for rows, owner in zip(boxes, found):
        if rows:
            expected = matcher(box_iou(torch.tensor(rows), priors.boxes))
            assert torch.equal(owner, torch.where(expected >= 0, expected + first, expected))
        first += len(rows)


@pytest.mark.parametrize("low_quality", ["reassign", "keep_argmax", "off"])
def test_matches_carry_their_similarity_in_order(low_quality):
    priors, targets = two_level_priors(), random_batch()
    matches = iou_matches(priors, targets, 0.3, 0.3, low_quality=low_quality)
    pairs = matches.pairs
    key = pairs.gt * len(priors) + pairs.prior
    assert (key.diff() > 0).all() and len(key) > 20
    value = pair_similarity(targets.boxes[pairs.gt], priors.boxes[pairs.prior], "iou")
    assert torch.equal(matches.similarity, value)
    assert not matches.ignored.any()
    asked = set(zip(matches.candidates.gt.tolist(), matches.candidates.prior.tolist()))
    kept = set(zip(pairs.gt.tolist(), pairs.prior.tolist()))
    # Only a rescued prior that keeps its own box may get one that did not ask for it.
    assert low_quality == "keep_argmax" or kept <= asked


def test_many_rescued_priors_are_compared_in_pieces(monkeypatch):
    priors = AnchorGrid([[(8, 8)]], (8,))([(8, 12)])
    targets = random_batch((40, 0, 60), seed=3)
    options = {"low_quality": "keep_argmax", "positive": 0.9, "negative": 0.8}
    whole = MaxIoU(**options)(priors, targets).gt_index()
    monkeypatch.setattr(pieces, "PAIR_BUDGET", 64)
    assert torch.equal(MaxIoU(**options)(priors, targets).gt_index(), whole)


@pytest.mark.parametrize("low_quality", ["reassign", "keep_argmax", "off"])
@pytest.mark.parametrize("similarity", ["iou", "nwd"])
def test_some_images_at_a_time_change_nothing(low_quality, similarity, monkeypatch):
    targets = random_batch((0, 9, 3, 0, 12, 7, 0), seed=4)
    options = {"low_quality": low_quality, "similarity": similarity, "min_positive": 0.1}
    whole = iou_matches(two_level_priors(), targets, 0.4, (0.1, 0.3), **options)
    monkeypatch.setattr(iou_match, "BOXES_AT_ONCE", 12)
    parts = iou_matches(two_level_priors(), targets, 0.4, (0.1, 0.3), **options)
    for pairs, expected in ((parts.pairs, whole.pairs), (parts.candidates, whole.candidates)):
        assert pairs.gt.tolist() == expected.gt.tolist()
        assert pairs.prior.tolist() == expected.prior.tolist()
    assert torch.equal(parts.similarity, whole.similarity)
    assert torch.equal(parts.ignored, whole.ignored)


def test_background_in_a_crowd_takes_no_part_as_coco_evaluation_has_it():
    priors = two_level_priors()
    boxes, crowds = random_boxes(6, seed=1), random_boxes(3, seed=5)
    targets = Targets.from_lists([torch.cat((boxes, crowds))], [[0] * 9], [[False] * 6 + [True] * 3])
    plain = MaxIoU()(priors, one_image(*boxes.tolist())).gt_index()[0]
    xywh = [
        numpy.asarray(torch.cat((rows[:, :2], rows[:, 2:] - rows[:, :2]), 1).double())
        for rows in (priors.boxes, crowds)
    ]
    covered = torch.from_numpy(coco.iou(*xywh, [1] * 3)).amax(1) >= 0.5
    expected = torch.where(covered & (plain == -1), -2, plain)
    assert (expected == -2).sum() > (plain == -2).sum()
    assert torch.equal(MaxIoU()(priors, targets).gt_index()[0], expected)


def test_a_measure_may_have_constants_of_its_own():
    apart = one_image([0.0, 0.0, 8.0, 8.0], [22.0, 0.0, 30.0, 8.0])
    # The second box is 2 px from the third prior's neighbour: exp(-2 / constant).
    assert owners(apart, similarity="nwd", positive=0.8, negative=0.6) == [0, -1, -2, 1]
    assert owners(apart, similarity=NWD(100.0), positive=0.8, negative=0.6) == [0, 0, 1, 1]
    assert "NWD(constant=100.0)" in repr(MaxIoU(similarity=NWD(100.0)))
