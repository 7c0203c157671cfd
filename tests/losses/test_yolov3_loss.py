"""The loss of YOLOv3: each term by hand, and what it must not depend on."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.testing import assert_close
from yolo_scene import floats, leaves, nobody, scene, three_levels

from boxmatch.assign import YOLOv3
from boxmatch.losses import YOLOv3Loss, yolov3
from boxmatch.losses.yolov3 import Reduction, box_scale, box_targets
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

PRIORS = AnchorGrid([[(8, 8)]], (16,))([(2, 2)], "cpu")  # a picture of 32 × 32 px
BOX, OTHER = [4.0, 2.0, 12.0, 18.0], [2.0, 4.0, 18.0, 12.0]  # centres (8, 10) and (10, 8) in cell 0


def blank(images: int = 1, classes: int = 3, priors: Priors = PRIORS) -> Predictions:
    shape = (images, len(priors))
    return Predictions(
        logits=torch.zeros(*shape, classes), deltas=torch.zeros(*shape, 4), quality=torch.zeros(shape)
    )


def assigned(*boxes: list[float]) -> Assignment:
    """The class of each box is its row."""
    targets = Targets.from_lists([list(boxes)], [list(range(len(boxes)))])
    return YOLOv3()(PRIORS, targets, replace(blank(), boxes=torch.zeros(1, 4, 4)))


def loss(assignment: Assignment, predictions: Predictions, priors: Priors = PRIORS, **options) -> dict:
    return floats(YOLOv3Loss(**options)(priors, assignment.targets, predictions, assignment))


def test_targets_are_the_place_in_the_cell_and_the_log_ratio_to_the_anchor():
    pairs = Pairs(torch.tensor([0]), torch.tensor([0]))
    targets = assigned(BOX).targets
    assert_close(box_targets(PRIORS, targets, pairs), torch.tensor([[0.5, 0.625, 0.0, math.log(2)]]))
    outside = Pairs(torch.tensor([0]), torch.tensor([3]))
    assert box_targets(PRIORS, targets, outside)[0, :2].tolist() == [0, 0]


def test_small_boxes_weigh_up_to_twice_as_much_as_the_whole_picture():
    targets = Targets.from_lists([[[0, 0, 32, 32], [0, 0, 16, 16], [-50, -50, 90, 90]]], [[0, 0, 0]])
    pairs = Pairs(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    assert box_scale(PRIORS, targets, pairs).tolist() == [1.0, 1.75, 0.0]


def test_terms_by_hand():
    half = math.log(2)  # cross-entropy of a logit of 0 against anything
    scale = 2 - 8 * 16 / 32**2
    assert loss(assigned(BOX), blank()) == pytest.approx(
        {"center": scale * 2 * half, "size": scale * half**2 / 2, "objectness": 4 * half, "class": 3 * half}
    )


def test_a_shared_prior_learns_one_box_and_all_classes():
    predictions, shared = blank(), assigned(BOX, OTHER)
    sure = math.log(3)  # probability 3 / 4
    predictions.logits[0, 0] = torch.tensor([sure, sure, -sure])
    terms = loss(shared, predictions)
    assert terms["class"] == pytest.approx(3 * math.log(4 / 3))
    alone = loss(assigned(OTHER), predictions)
    assert (terms["center"], terms["size"]) == (alone["center"], alone["size"])
    single = YOLOv3(class_collision="overwrite")(
        PRIORS, shared.targets, replace(blank(), boxes=torch.zeros(1, 4, 4))
    )
    assert loss(single, predictions)["class"] == pytest.approx(2 * math.log(4 / 3) + math.log(4))


def test_ignored_priors_have_no_gradient_and_the_others_that_of_the_original():
    assignment = assigned(BOX)
    assignment.ignored[0, 2] = True
    predictions = blank()
    for leaf in leaves(predictions):
        leaf.requires_grad_()
    terms = YOLOv3Loss()(PRIORS, assignment.targets, predictions, assignment)
    logits, deltas, quality = torch.autograd.grad(sum(terms.values()), leaves(predictions))
    scale = 2 - 8 * 16 / 32**2
    assert_close(quality, torch.tensor([[-0.5, 0.5, 0.0, 0.5]]))
    assert_close(deltas[0, 0], scale * torch.tensor([0.0, 0.5 - 0.625, 0.0, -math.log(2)]))
    assert_close(logits[0, 0], torch.tensor([-0.5, 0.5, 0.5]))
    assert not deltas[0, 1:].any() and not logits[0, 1:].any()


def test_the_most_wrong_logits_still_have_a_gradient():
    predictions = blank()
    predictions.quality[0] = torch.tensor([-120.0, 30.0, 30.0, 30.0])
    predictions.quality.requires_grad_()
    terms = YOLOv3Loss()(PRIORS, assigned(BOX).targets, predictions, assigned(BOX))
    terms["objectness"].backward()
    assert terms["objectness"].item() == pytest.approx(120 + 90)
    assert_close(predictions.quality.grad, torch.tensor([[-1.0, 1.0, 1.0, 1.0]]))


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean_batch", 3), ("mean_positives", 0)])
def test_reductions_divide_all_terms_alike(reduction: Reduction, divisor: int):
    parts = scene()
    plain = floats(YOLOv3Loss()(*parts))
    reduced = floats(YOLOv3Loss(reduction=reduction)(*parts))
    divisor = divisor or len(parts[3].pairs)
    assert reduced == pytest.approx({name: value / divisor for name, value in plain.items()}, rel=1e-6)


def test_the_sum_is_that_of_its_images():
    priors, targets, predictions, assignment = scene()
    whole = floats(YOLOv3Loss()(priors, targets, predictions, assignment))
    parts: dict[str, float] = dict.fromkeys(whole, 0.0)
    for image in range(3):
        rows = targets.image == image
        own = Targets.from_lists([targets.boxes[rows]], [targets.labels[rows]])
        kept = assignment.image == image
        first = int(rows.nonzero()[0]) if rows.any() else 0
        pairs = Pairs(assignment.pairs.gt[kept] - first, assignment.pairs.prior[kept])
        alone = Assignment.hard(pairs, own, len(priors), levels=priors.levels)
        said = Predictions(
            logits=predictions.logits[image, None],
            deltas=predictions.deltas[image, None],
            quality=predictions.quality[image, None],
        )
        for name, value in floats(YOLOv3Loss()(priors, own, said, alone)).items():
            parts[name] += value
    assert whole == pytest.approx(parts, rel=1e-5)


def test_soft_assignments_weigh_their_boxes():
    priors, targets, predictions, assignment = scene()
    plain = floats(YOLOv3Loss()(priors, targets, predictions, assignment))
    softer = replace(assignment, weight=assignment.weight / 2)
    soft = floats(YOLOv3Loss()(priors, targets, predictions, softer))
    for name in ("center", "size", "class"):
        assert soft[name] == pytest.approx(plain[name] / 2, rel=1e-6)
    assert soft["objectness"] == plain["objectness"]


@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("reduction", ["sum", "mean_batch", "mean_positives"])
def test_without_boxes_only_objectness_is_left(images: int, reduction: Reduction):
    priors = three_levels()
    targets, assignment = nobody(priors, images)
    terms = YOLOv3Loss(reduction=reduction)(priors, targets, blank(images, 3, priors), assignment)
    assert terms["center"] == terms["size"] == terms["class"] == 0
    assert terms["objectness"].isfinite() and (terms["objectness"] > 0) == (images > 0)


def test_one_class_and_half_precision_give_float32_terms():
    parts = scene(classes=1)
    predictions = parts[2]
    halves = Predictions(
        logits=predictions.logits.bfloat16(),
        deltas=predictions.deltas.bfloat16(),
        quality=predictions.quality.bfloat16(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = YOLOv3Loss()(parts[0], parts[1], halves, parts[3])
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert floats(terms) == pytest.approx(floats(YOLOv3Loss()(*parts)), rel=0.05)


@pytest.mark.parametrize(
    ("reduction", "factor"), [("sum", 2.0), ("mean_batch", 1 / 3), ("mean_positives", 0.25)]
)
def test_over_ranks_the_sum_is_that_of_all_and_positives_are_counted_together(
    reduction: Reduction, factor: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(yolov3, "rank_count", lambda: 2)
    monkeypatch.setattr(yolov3, "mean_over_ranks", lambda counts: torch.full_like(counts, 4.0))
    parts = scene()
    plain = floats(YOLOv3Loss().eval()(*parts))
    ranked = floats(YOLOv3Loss(reduction=reduction)(*parts))
    assert ranked == pytest.approx({name: factor * value for name, value in plain.items()}, rel=1e-6)


def test_what_it_cannot_use_is_refused():
    priors, targets, predictions, assignment = scene()
    with pytest.raises(ValueError, match="objectness logits"):
        YOLOv3Loss()(priors, targets, replace(predictions, quality=None), assignment)
    free = Priors.from_boxes(priors.boxes)
    with pytest.raises(ValueError, match="anchors on a grid"):
        YOLOv3Loss()(free, targets, predictions, assignment)
    with pytest.raises((ValueError, TypeCheckError), match="reduction"):
        YOLOv3Loss(reduction="average")
