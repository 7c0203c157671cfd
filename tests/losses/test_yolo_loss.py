"""The YOLO loss: each term by hand, every option, and what it must not depend on."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from yolo_scene import CODER, floats, scene

from boxmatch.assign import NearbyGrid
from boxmatch.boxes import cxcywh_to_xyxy
from boxmatch.losses import YOLOLoss, box_similarity, focal_loss
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets


def by_hand(
    priors: Priors, targets: Targets, predictions: Predictions, assignment: Assignment, **options: Any
) -> dict[str, float]:
    """The formula of the docstring, one prior at a time, in float64, with a cell mean and a layer mean."""
    gamma, kind = options.get("focal_loss_gamma", 3.5), options.get("iou_loss_type", "ciou_lite")
    scales = options.get("lambda_scales", (1.0, 1.0, 1.0))
    assert predictions.quality is not None
    owner = {
        (int(i), int(p)): int(g)
        for i, p, g in zip(assignment.image, assignment.pairs.prior, assignment.pairs.gt, strict=True)
    }
    side = math.sqrt(64 * 96)
    terms = {"objectness": 0.0, "noobj": 0.0, "box": 0.0, "class": 0.0}
    for level, scale in enumerate(scales):
        values: dict[str, list[float]] = {name: [] for name in terms}
        for image in range(targets.batch_size):
            for prior in (priors.level == level).nonzero().squeeze(1).tolist():
                target = 0.0
                if assignment.ignored[image, prior]:
                    continue
                if (image, prior) in owner:
                    gt = owner[image, prior]
                    box = CODER.decode(predictions.deltas[image, [prior]], priors, torch.tensor([prior]))
                    q = box_similarity(cxcywh_to_xyxy(box) / side, targets.boxes[[gt]] / side, kind).item()
                    target = 1.0 if options.get("assign_conf_method") == "constant" else min(max(q, 0.0), 1.0)
                    values["box"].append(1 - q)
                    label = torch.zeros(predictions.logits.shape[2], dtype=torch.float64)
                    label[targets.labels[gt]] = 1
                    values["class"] += focal_loss(
                        predictions.logits[image, prior].double(), label, gamma
                    ).tolist()
                logit = predictions.quality[image, [prior]].double()
                loss = focal_loss(logit, torch.tensor([target], dtype=torch.float64), gamma).item()
                values["objectness"].append(loss)
                values["noobj"].append((1 - target) * loss)
        for name, several in values.items():
            terms[name] += scale * sum(several) / len(several)
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iou_loss_type": "siou_lite", "focal_loss_gamma": 0.0},
        {"iou_loss_type": "giou", "assign_conf_method": "constant", "lambda_scales": (4.0, 1.0, 0.25)},
        {"iou_loss_type": "ciou", "focal_loss_gamma": 1.0},
        {"iou_loss_type": "siou"},
    ],
)
def test_terms_equal_the_formula_prior_by_prior(options: dict[str, Any]) -> None:
    parts = scene()
    expected = by_hand(*parts, **options)
    found = floats(YOLOLoss(lambda_obj=0.7, lambda_coord=0.3, lambda_class=2.0, **options)(*parts, CODER))
    weighted = {
        "objectness": 0.7 * expected["objectness"],
        "box": 0.3 * expected["box"],
        "class": 2 * expected["class"],
    }
    assert found == pytest.approx(weighted, rel=1e-4)


def test_the_defaults_are_the_shipped_settings_of_the_original() -> None:
    parts = scene()
    expected = by_hand(*parts, focal_loss_gamma=3.5, iou_loss_type="ciou_lite")
    found = floats(YOLOLoss()(*parts, CODER))
    assert found == pytest.approx(
        {"objectness": expected["objectness"], "box": 0.1 * expected["box"], "class": expected["class"]},
        rel=1e-4,
    )


def test_the_no_object_term_weighs_background_in_full_and_positives_by_what_they_lack() -> None:
    parts = scene()
    expected = by_hand(*parts)
    found = floats(YOLOLoss(use_noobj_loss=True, lambda_noobj=0.5)(*parts, CODER))
    assert found["objectness"] == pytest.approx(expected["objectness"] + 0.5 * expected["noobj"], rel=1e-4)


def test_ignored_priors_give_nothing_and_are_not_counted() -> None:
    priors, targets, predictions, assignment = scene()
    ignored = torch.rand(assignment.ignored.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    ignored[assignment.image, assignment.pairs.prior] = False
    assignment = replace(assignment, ignored=ignored)
    terms = YOLOLoss()(priors, targets, predictions, assignment, CODER)
    expected = by_hand(priors, targets, predictions, assignment)
    assert floats(terms)["objectness"] == pytest.approx(expected["objectness"], rel=1e-4)
    terms["objectness"].backward()
    assert predictions.quality is not None and predictions.quality.grad is not None
    assert not predictions.quality.grad[ignored].any()
    assert predictions.quality.grad[~ignored].all()


def test_objectness_over_positives_is_the_sum_over_cells_divided_by_their_number() -> None:
    priors, targets, predictions, assignment = scene()
    cells = [YOLOLoss(lambda_scales=tuple(float(i == j) for j in range(3))) for i in range(3)]
    total = sum(
        loss(priors, targets, predictions, assignment, CODER)["objectness"].item() * 3 * len(level)
        for loss, level in zip(cells, priors.levels, strict=True)
    )
    found = YOLOLoss(objectness_average="positives")(priors, targets, predictions, assignment, CODER)
    assert found["objectness"].item() == pytest.approx(total / len(assignment.pairs), rel=1e-4)


def test_box_and_class_over_all_levels_are_means_over_all_positives() -> None:
    priors, targets, predictions, assignment = scene()
    counts = torch.bincount(assignment.level, minlength=3).tolist()
    expected = {"box": 0.0, "class": 0.0}
    for i, count in enumerate(counts):
        level = YOLOLoss(lambda_scales=tuple(float(i == j) for j in range(3)))
        terms = floats(level(priors, targets, predictions, assignment, CODER))
        expected = {name: value + terms[name] * count / sum(counts) for name, value in expected.items()}
    found = floats(YOLOLoss(box_average="all")(priors, targets, predictions, assignment, CODER))
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_the_class_term_may_have_its_own_focal_exponent() -> None:
    parts = scene()
    found = floats(YOLOLoss(class_focal_gamma=0.0)(*parts, CODER))
    assert found["class"] == pytest.approx(by_hand(*parts, focal_loss_gamma=0.0)["class"], rel=1e-4)
    assert found["objectness"] == pytest.approx(by_hand(*parts)["objectness"], rel=1e-4)


def test_the_class_term_may_be_summed_over_the_classes() -> None:
    parts = scene()
    mean, total = (floats(YOLOLoss(sum_classes=summed)(*parts, CODER)) for summed in (False, True))
    classes = parts[2].logits.shape[2]
    assert total["class"] == pytest.approx(classes * mean["class"], rel=1e-4)
    assert total["box"] == mean["box"]


def test_pairs_count_by_their_weight() -> None:
    priors, targets, predictions, assignment = scene()
    gone = replace(assignment, weight=torch.zeros_like(assignment.weight))
    terms = floats(YOLOLoss()(priors, targets, predictions, gone, CODER))
    assert terms["box"] == terms["class"] == 0
    half = replace(assignment, weight=torch.full_like(assignment.weight, 0.5))
    assert floats(YOLOLoss()(priors, targets, predictions, half, CODER)) == pytest.approx(
        floats(YOLOLoss()(priors, targets, predictions, assignment, CODER))
    )


def test_constant_confidence_is_the_score_of_the_assigner() -> None:
    priors, targets, predictions, assignment = scene()
    soft = replace(assignment, score=torch.full_like(assignment.score, 0.4))
    loss = YOLOLoss(assign_conf_method="constant", lambda_scales=(1.0, 0.0, 0.0))
    found = loss(priors, targets, predictions, soft, CODER)
    rows = assignment.pairs.select(assignment.level == 0)
    wanted = torch.zeros(predictions.quality.shape)
    wanted[targets.image[rows.gt], rows.prior] = 0.4
    cells = len(priors.levels[0])
    assert_close(found["objectness"], focal_loss(predictions.quality, wanted, 3.5)[:, :cells].mean())
    hard = loss(priors, targets, predictions, assignment, CODER)
    assert_close(found["class"], hard["class"])  # the class is asked given that there is an object


def test_a_prior_with_two_boxes_takes_the_better_as_its_objectness() -> None:
    priors, targets, predictions, assignment = scene()
    prior = int(assignment.pairs.prior[0])
    own = [Pairs(torch.tensor(gts), torch.full((len(gts),), prior)) for gts in ([0], [1], [0, 1])]
    found = []
    for pairs in own:
        several = Assignment.hard(pairs, targets, len(priors), levels=priors.levels)
        terms = YOLOLoss(focal_loss_gamma=0.0)(priors, targets, predictions, several, CODER)
        found.append(terms["objectness"].item())
    box = cxcywh_to_xyxy(CODER.decode(predictions.deltas[0, [prior]].detach(), priors, own[0].prior))
    first, second = box_similarity(box.expand(2, 4), targets.boxes[:2], "ciou_lite").tolist()
    assert first != second
    better = int(second > first)
    assert found[2] == pytest.approx(found[better])


def test_a_batch_is_learned_as_its_images_in_any_order() -> None:
    priors, targets, predictions, assignment = scene()
    flipped = Targets(
        targets.boxes.flip(0), targets.labels.flip(0), 2 - targets.image.flip(0), targets.ignore, 3
    )
    mirrored = Predictions(
        predictions.logits.flip(0), predictions.deltas.flip(0), None, predictions.quality.flip(0)
    )
    again = NearbyGrid(match_iou_thres=0.1)(priors, flipped)
    found = floats(YOLOLoss()(priors, flipped, mirrored, again, CODER))
    assert found == pytest.approx(
        floats(YOLOLoss()(priors, targets, predictions, assignment, CODER)), rel=1e-5
    )


def test_the_terms_do_not_depend_on_the_unit_of_length() -> None:
    """Twice the size of input, anchors and boxes is the same picture: eps grows with the input's area."""
    priors, targets, predictions, assignment = scene()
    grid = AnchorGrid([[(20, 26), (32, 60)], [(60, 122), (124, 90)], [(232, 180), (140, 140)]], [16, 32, 64])
    doubled = grid([(level.height, level.width) for level in priors.levels], torch.device("cpu"))
    large = replace(targets, boxes=2 * targets.boxes)
    again = replace(assignment, targets=large)
    found = floats(YOLOLoss()(doubled, large, predictions, again, CODER))
    assert found == pytest.approx(
        floats(YOLOLoss()(priors, targets, predictions, assignment, CODER)), rel=1e-5
    )
