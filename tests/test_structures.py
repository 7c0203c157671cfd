"""The shared types: what they refuse, and what an assignment tells about itself."""

import json
from dataclasses import replace

import pytest
import torch

from boxmatch.structures import Assignment, Detections, Level, Pairs, Predictions, Targets

BOX = [0.0, 0.0, 4.0, 4.0]
OTHER = [2.0, 2.0, 9.0, 9.0]


def test_targets_from_lists_are_flat_with_the_image_of_each_box():
    targets = Targets.from_lists([[BOX], [], [OTHER, BOX]], [[1], [], [0, 2]], [[False], [], [True, False]])
    assert targets.boxes.tolist() == [BOX, OTHER, BOX]
    assert targets.labels.tolist() == [1, 0, 2]
    assert targets.image.tolist() == [0, 2, 2]
    assert targets.ignore.tolist() == [False, True, False]
    assert targets.per_image().tolist() == [1, 0, 2]
    assert len(targets) == 3


def test_targets_without_any_box_keep_their_images():
    targets = Targets.from_lists([[], []], [[], []])
    assert targets.boxes.shape == (0, 4)
    assert targets.per_image().tolist() == [0, 0]
    assert Targets.from_lists([], []).batch_size == 0


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([0, 0, float("nan"), 4], 0, "finite coordinates"),
        ([0, 0, float("inf"), 4], 0, "finite coordinates"),
        ([4, 0, 4, 4], 0, "x1 < x2 and y1 < y2"),
        ([0, 5, 4, 4], 0, "x1 < x2 and y1 < y2"),
        (BOX, -1, "a label in 0 or more"),
    ],
)
def test_targets_name_the_first_wrong_box_and_its_image(box, label, message):
    with pytest.raises(ValueError, match=rf"box 1 of the batch \(image 1\): expected {message}"):
        Targets.from_lists([[BOX], [box]], [[0], [label]])


def test_targets_check_labels_against_the_number_of_classes():
    targets = Targets.from_lists([[BOX, BOX]], [[0, 3]])
    targets.check(num_classes=4)
    with pytest.raises(ValueError, match=r"box 1 .* a label in 0 \.\. 2"):
        targets.check(num_classes=3)


@pytest.mark.parametrize("image", [[1, 0], [0, 2], [-1, 0]])
def test_targets_refuse_images_out_of_order_or_range(image):
    targets = Targets.from_lists([[BOX], [OTHER]], [[0], [0]])
    with pytest.raises(ValueError, match=r"ascending image indices in 0 \.\. 1"):
        replace(targets, image=torch.tensor(image)).check()


def test_targets_refuse_lists_of_different_length():
    with pytest.raises(ValueError, match="got 2 box lists and 1 label lists"):
        Targets.from_lists([[BOX], []], [[0]])
    with pytest.raises(ValueError, match="image 1: expected 1 labels"):
        Targets.from_lists([[], [BOX]], [[], []])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros((1, 20)), r"labels of shape \(1,\), got \(1, 20\); .*not a map of classes"),
        (
            torch.zeros((25, 25)).long(),
            r"labels of shape \(1,\), got \(25, 25\); .*for a tracker, zeros\(G\)",
        ),
        (torch.full((1,), 0.5), r"whole numbers \(int64\), got torch.float32"),
        (torch.full((1,), torch.inf), r"whole numbers \(int64\), got torch.float32"),
        ([True], r"whole numbers \(int64\), got torch.bool"),
    ],
)
def test_a_map_of_classes_rows_of_zeros_and_ones_and_fractions_are_no_labels(labels, message):
    with pytest.raises(ValueError, match=rf"image 1: expected .*{message}"):
        Targets.from_lists([[], [BOX]], [[], labels])


def test_whole_numbers_of_another_type_are_labels():
    assert Targets.from_lists([[BOX]], [torch.ones(1)]).labels.tolist() == [1]
    assert Targets.from_lists([[BOX]], [torch.ones(1)]).labels.dtype == torch.int64


@pytest.mark.parametrize("boxes", [BOX, [[*BOX, 1.0]], [[BOX]]])
def test_boxes_of_another_shape_are_refused(boxes):
    with pytest.raises(ValueError, match=r"image 0: expected boxes of shape \(n, 4\), xyxy in pixels, got"):
        Targets.from_lists([boxes], [[0]])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "labels",
            torch.zeros((1, 20)).long(),
            r"labels of shape \(1,\), got \(1, 20\); .*class number of each",
        ),
        ("labels", torch.zeros(2).long(), r"labels of shape \(1,\), got \(2,\)"),
        ("image", torch.zeros((1, 1)).long(), r"image of shape \(1,\)"),
        ("ignore", torch.zeros(0).bool(), r"ignore of shape \(1,\)"),
        ("boxes", torch.ones((1, 5)), r"boxes \(G, 4\), xyxy in pixels, got shape \(1, 5\)"),
    ],
)
def test_tensors_of_another_shape_are_refused_where_nothing_checks_annotations(name, value, message):
    targets = Targets.from_lists([[BOX]], [[0]])
    # Around the constructor, whose annotations the tests check and users do not.
    object.__setattr__(targets, name, value)
    with pytest.raises(ValueError, match=message):
        targets.check()


def test_selecting_rows_keeps_the_batch_size():
    targets = Targets.from_lists([[BOX], [OTHER]], [[0], [1]])
    chosen = targets.select(torch.tensor([False, True]))
    assert (chosen.labels.tolist(), chosen.image.tolist(), chosen.batch_size) == ([1], [1], 2)
    assert chosen.to("cpu").boxes.tolist() == [OTHER]


def test_detached_predictions_have_no_graph_and_keep_what_is_missing_missing():
    logits, deltas = torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 2, 4, requires_grad=True)
    predictions = Predictions(logits, deltas)
    detached = predictions.detach()
    assert not detached.logits.requires_grad
    assert not detached.deltas.requires_grad
    assert detached.boxes is None
    assert detached.quality is None


def test_detections_count_their_boxes():
    found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.1]), torch.tensor([1, 0])).to("cpu")
    assert len(found) == 2


# Two levels of 2 × 2 and 1 × 1 cells with one anchor: priors 0 to 3 and prior 4. Image 0 owns boxes 0 and 1
# and the ignore region 2, image 1 owns boxes 3 and 4. Box 4 gets nothing.
LEVELS = (Level(2, 2, 8, 1), Level(1, 1, 16, 1))
TARGETS = Targets.from_lists(
    [[BOX, OTHER, OTHER], [BOX, OTHER]], [[0, 1, 0], [2, 0]], [[False, False, True], [False, False]]
)


def example(candidates: Pairs | None = None) -> Assignment:
    """Four pairs and one ignored prior."""
    pairs = Pairs(torch.tensor([0, 0, 1, 3]), torch.tensor([1, 4, 2, 1]))
    assignment = Assignment.hard(pairs, TARGETS, 5, levels=LEVELS, candidates=candidates)
    ignored = assignment.ignored.clone()
    ignored[0, 3] = True
    return replace(assignment, ignored=ignored)


def test_gt_index_holds_the_row_background_or_ignored_of_every_prior():
    assert example().gt_index().tolist() == [[-1, 0, 1, -2, 0], [-1, 3, -1, -1, -1]]


def test_a_hard_assignment_has_full_strength_and_no_negative_term():
    assignment = example()
    assert assignment.weight.tolist() == assignment.score.tolist() == [1.0] * 4
    assert assignment.neg_weight.tolist() == [0.0] * 4
    assert assignment.image.tolist() == [0, 0, 0, 1]
    assert assignment.level.tolist() == [0, 1, 0, 0]


def test_gt_index_refuses_a_prior_with_several_boxes_and_names_it():
    shared = Assignment.hard(
        Pairs(torch.tensor([0, 1, 3]), torch.tensor([2, 2, 2])), TARGETS, 5, levels=LEVELS
    )
    with pytest.raises(ValueError, match="got 2 for prior 2 of image 0"):
        shared.gt_index()
    assert shared.stats().contested == 1


@pytest.mark.parametrize("only", ["weight", "score"])
def test_of_boxes_that_share_a_prior_the_one_that_teaches_both_its_box_and_its_class_is_the_gt_index(only):
    shared = Assignment.hard(
        Pairs(torch.tensor([0, 1, 3]), torch.tensor([2, 2, 2])), TARGETS, 5, levels=LEVELS
    )
    second = replace(shared, **{only: torch.tensor([0.0, 1.0, 0.0])})
    assert second.gt_index().tolist() == [[-1, -1, 1, -1, -1], [-1, -1, 3, -1, -1]]


def test_pairs_without_weight_are_no_positives():
    assignment = replace(example(), weight=torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert assignment.stats().positives.tolist() == [1, 0, 0, 1, 0]
    assert assignment.stats().starved.tolist() == [1, 4]
    assert assignment.stats().background == 7


def test_stats_count_per_box_and_level_and_leave_ignore_regions_out_of_the_starved():
    stats = example().stats()
    assert stats.positives.tolist() == [2, 1, 0, 1, 0]
    assert stats.level_positives.tolist() == [[1, 1], [1, 0], [0, 0], [1, 0], [0, 0]]
    assert stats.starved.tolist() == [4]
    assert (stats.total, stats.contested, stats.ignored, stats.background) == (4, 0, 1, 5)


def test_contested_priors_are_those_with_several_candidates():
    candidates = Pairs(torch.tensor([0, 0, 1, 1, 1, 3, 4]), torch.tensor([1, 4, 1, 2, 4, 1, 2]))
    assert example(candidates).stats().contested == 2  # priors 1 and 4 of image 0


def test_stats_print_in_one_line_and_go_into_json():
    stats = example().stats()
    assert str(stats) == (
        "5 boxes, 4 positives (by level: 3, 1), 1 without a positive, "
        "0 contested priors, 1 ignored, 5 background"
    )
    assert json.loads(json.dumps(stats.as_dict())) == {
        "positives": [2, 1, 0, 1, 0],
        "level_positives": [[1, 1], [1, 0], [0, 0], [1, 0], [0, 0]],
        "starved": [4],
        "total": 4,
        "contested": 0,
        "ignored": 1,
        "background": 5,
    }


def test_priors_without_a_grid_count_as_one_level():
    free = Assignment.hard(Pairs(torch.tensor([1]), torch.tensor([4])), TARGETS, 5)
    assert free.level.tolist() == [0]
    assert free.stats().level_positives.tolist() == [[0], [1], [0], [0], [0]]


def test_an_assignment_without_boxes_has_empty_stats():
    none = torch.zeros(0, dtype=torch.int64)
    stats = Assignment.hard(Pairs(none, none), Targets.from_lists([[]], [[]]), 5, levels=LEVELS).stats()
    assert stats.level_positives.shape == (0, 2)
    assert (stats.total, stats.background) == (0, 5)
