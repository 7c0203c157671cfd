"""YOLOv3 on paper, at its edges, and against obvious loops."""

from typing import get_args

import pytest
import torch
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from yolov3_loops import picture

from boxmatch.assign import YOLOv3
from boxmatch.assign.yolov3 import ClassCollision, Collision
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import REASONS, Assignment, Predictions, Targets

COARSE = AnchorGrid([[(8, 8), (16, 16)], [(32, 32), (64, 64)]], (8, 32))([(4, 4), (1, 1)], "cpu")
# Priors 0 to 31: cells of 8 px, two anchors each; priors 32 and 33: the one cell of 32 px.


def saying(priors: Priors, boxes: dict[int, list[float]] | None = None, images: int = 1) -> Predictions:
    """Predictions that say nothing, but for some priors of the first image."""
    said = torch.zeros(images, len(priors), 4)
    for prior, box in (boxes or {}).items():
        said[0, prior] = torch.tensor(box)
    return Predictions(logits=torch.zeros(images, len(priors), 3), deltas=torch.zeros_like(said), boxes=said)


def one_image(*boxes: list[float]) -> Targets:
    """The class of each box is its row."""
    return Targets.from_lists([list(boxes)], [list(range(len(boxes)))])


def around(x: float, y: float, side: float) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def call(targets: Targets, priors: Priors = COARSE, **options) -> Assignment:
    return YOLOv3(**options)(priors, targets, saying(priors, images=targets.batch_size), explain=True)


@pytest.mark.parametrize(("side", "prior"), [(7, 10), (15, 11), (30, 32), (64, 33), (900, 33), (0.5, 10)])
def test_a_box_takes_the_one_anchor_of_its_shape_in_the_cell_of_its_centre(side, prior):
    assignment = call(one_image(around(12, 12, side)))  # cell (1, 1): priors 10 and 11
    assert assignment.pairs.prior.tolist() == [prior]
    assert (assignment.gt_index() >= 0).sum() == 1


def test_equal_shapes_go_to_the_anchor_that_is_listed_first():
    # 16 × 32 has an IoU of 1/2 with 16 × 16 and with 32 × 32.
    assert call(one_image([4.0, 0.0, 20.0, 32.0])).pairs.prior.tolist() == [2 * (2 * 4 + 1) + 1]
    turned = AnchorGrid([[(64, 64), (32, 32)], [(16, 16), (8, 8)]], (32, 8))([(1, 1), (4, 4)], "cpu")
    assert call(one_image([4.0, 0.0, 20.0, 32.0]), turned).pairs.prior.tolist() == [1]


@pytest.mark.parametrize(
    ("x", "column"),
    [(0.0, 0), (7.999, 0), (8.0, 1), (31.999, 3), (32.0, 3), (1000.0, 3), (-0.001, 0), (-50.0, 0)],
)
def test_a_centre_on_a_border_belongs_to_the_second_cell_and_outside_to_the_nearest(x, column):
    assert call(one_image(around(x, 4.0, 7))).pairs.prior.tolist() == [2 * column]
    assert call(one_image(around(4.0, x, 7))).pairs.prior.tolist() == [2 * 4 * column]


SHARED = [around(12, 12, 7), around(13, 11, 9), around(11, 13, 8)]
"""Three boxes of one cell and anchor: IoU of their shapes 0.77, 0.79 and 1."""


@pytest.mark.parametrize(
    ("collision", "owner"), [("last", 2), ("largest", 1), ("smallest", 0), ("best_iou", 2)]
)
def test_of_boxes_that_want_one_prior_one_gives_the_box_and_all_give_their_classes(collision, owner):
    assignment = call(one_image(*SHARED), collision=collision)
    assert assignment.pairs.prior.tolist() == [10, 10, 10]
    assert assignment.weight.tolist() == [float(row == owner) for row in range(3)]
    assert assignment.score.tolist() == [1.0, 1.0, 1.0]
    assert assignment.gt_index()[0, 10] == owner
    stats = assignment.stats()
    assert stats.starved.tolist() == [row for row in range(3) if row != owner]
    assert (stats.total, stats.contested) == (1, 1)


@pytest.mark.parametrize("collision", ["largest", "smallest", "best_iou"])
def test_equal_rivals_leave_it_to_the_lowest_row(collision):
    assert call(one_image(SHARED[0], SHARED[0]), collision=collision).gt_index()[0, 10] == 0


def test_overwrite_leaves_the_owner_alone():
    assignment = call(one_image(*SHARED), class_collision="overwrite")
    assert (assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()) == ([2], [10])
    assert assignment.explanation.counts()["lost_to_gt"] == 2


def test_one_cell_holds_boxes_of_other_anchors():
    assert call(one_image(around(12, 12, 7), around(12, 12, 15))).gt_index()[0, 10:12].tolist() == [0, 1]


def test_a_right_prediction_without_a_box_takes_no_part_whatever_its_level():
    box = around(12, 12, 20)  # prior 11
    tall = [2.0, 2.0, 22.0, 30.0]  # IoU 20 / 28 = 0.714
    taller = [2.0, 2.0, 22.0, 31.0]  # 0.69
    said = saying(COARSE, {0: box, 11: box, 20: tall, 21: taller, 33: box})
    assignment = YOLOv3()(COARSE, one_image(box), said)
    assert assignment.pairs.prior.tolist() == [11]  # though its prediction is above the threshold
    assert assignment.ignored[0].nonzero().flatten().tolist() == [0, 20, 33]
    assert assignment.gt_index()[0, [0, 11, 20, 21]].tolist() == [-2, 0, -2, -1]


def test_the_threshold_itself_is_not_ignored():
    box, half = [0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 8.0]
    said = saying(COARSE, {30: half})
    assert not YOLOv3(ignore_iou=0.5)(COARSE, one_image(box), said).ignored.any()
    assert YOLOv3(ignore_iou=0.499)(COARSE, one_image(box), said).ignored.sum() == 1
    assert not YOLOv3(ignore_iou=1.0)(COARSE, one_image(box), saying(COARSE, {30: box})).ignored.any()


def test_ignored_predictions_do_not_leak_into_other_images():
    box = around(12, 12, 20)
    batch = Targets.from_lists([[], [box]], [[], [0]])
    assignment = YOLOv3()(COARSE, batch, saying(COARSE, {0: box}, images=2))  # says so in the empty image
    assert not assignment.ignored.any()


def test_it_explains_itself():
    told = call(one_image(around(12, 12, 8), around(12, 12, 7))).explanation
    assert told.of(0).pairs.prior.tolist() == [10, 11, 32, 33]
    assert told.of(0).score.tolist() == [1, 0.25, 1 / 16, 1 / 64]
    assert [REASONS[reason] for reason in told.of(0).reason] == ["kept"] + ["not_topk"] * 3
    assert torch.isnan(told.threshold).all()


def test_fifty_and_more_boxes_in_one_cell_are_served():
    boxes = [around(12, 12, 7)] * 70
    assert call(one_image(*boxes)).gt_index()[0, 10] == 69


@given(
    grid=grids(),
    images=batches(),
    seed=st.integers(0, 2**31 - 1),
    ignore_iou=st.sampled_from([0.1, 0.5, 0.7]),
    collision=st.sampled_from(get_args(Collision)),
    class_collision=st.sampled_from(get_args(ClassCollision)),
)
@settings(max_examples=40, deadline=None)
def test_it_equals_the_loops(grid, images, seed, ignore_iou, collision, class_collision) -> None:
    priors, targets = make_priors(grid), make_targets(images)
    predictions = make_predictions(priors, targets, seed)
    assigner = YOLOv3(ignore_iou=ignore_iou, collision=collision, class_collision=class_collision)
    assignment = assigner(priors, targets, predictions)
    assert assignment.candidates is not None and predictions.boxes is not None
    first = 0
    for image, boxes in enumerate(images):
        labels = targets.labels[first : first + len(boxes)].tolist()
        said = predictions.boxes[image].tolist()
        wanted = picture(priors, boxes, labels, said, ignore_iou, collision, class_collision)
        here = targets.image[assignment.candidates.gt] == image
        assert assignment.candidates.prior[here].tolist() == wanted.anchor
        owner = assignment.gt_index()[image]
        rows = (owner >= 0).nonzero().flatten().tolist()
        assert {prior: int(owner[prior]) - first for prior in rows} == wanted.owner
        assert set((owner == -2).nonzero().flatten().tolist()) == wanted.ignored
        classes: dict[int, set[int]] = {}
        for gt, prior in zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()):
            if first <= gt < first + len(boxes):
                classes.setdefault(prior, set()).add(int(targets.labels[gt]))
        assert classes == wanted.classes
        first += len(boxes)


def test_the_batch_is_the_sum_of_its_images_also_in_what_is_ignored():
    priors, targets = two_level_priors(), random_batch()
    predictions = make_predictions(priors, targets, 3)
    whole = YOLOv3(ignore_iou=0.4)(priors, targets, predictions).ignored
    assert whole.any()
    for image in range(targets.batch_size):
        part = targets.select(targets.image == image)
        alone = Targets.from_lists([part.boxes], [part.labels])
        said = Predictions(
            *(
                values[image : image + 1]
                for values in (predictions.logits, predictions.deltas, predictions.boxes)
            )
        )
        assert torch.equal(YOLOv3(ignore_iou=0.4)(priors, alone, said).ignored[0], whole[image])


@pytest.mark.parametrize(
    "arguments",
    [{"ignore_iou": 0.0}, {"ignore_iou": 1.1}, {"ignore_iou": float("nan")}, {"ignore_threshold": 0.1}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected ignore_"):
        YOLOv3(**arguments)


@pytest.mark.parametrize("option", ["collision", "class_collision"])
def test_unknown_words_are_refused(option):
    with pytest.raises((ValueError, TypeCheckError), match=option):
        YOLOv3(**{option: "first"})


def test_priors_on_no_grid_and_predictions_without_boxes_are_refused():
    free = Priors.from_boxes(torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
    with pytest.raises(ValueError, match="on a grid"):
        YOLOv3()(free, one_image(SHARED[0]), saying(free))
    blank = Predictions(logits=torch.zeros(1, len(COARSE), 3), deltas=torch.zeros(1, len(COARSE), 4))
    with pytest.raises(ValueError, match="YOLOv3 compares predicted boxes"):
        YOLOv3()(COARSE, one_image(SHARED[0]), blank)


def test_it_shows_its_options():
    assert repr(YOLOv3(collision="largest")) == (
        "YOLOv3(ignore_iou=0.7, collision='largest', class_collision='union')"
    )


def test_a_single_level_of_one_anchor_is_enough():
    priors = one_level_priors(2, 2, 16, [(20, 20)])
    assert call(one_image(around(20, 5, 100)), priors).pairs.prior.tolist() == [1]
