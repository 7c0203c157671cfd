"""The YOLO loss on empty, ignored and extreme input: finite, connected graphs, float32, clear refusals."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.testing import assert_close
from yolo_scene import CODER, floats, leaves, nobody, scene

from boxmatch.coders import GridCoder
from boxmatch.losses import YOLOLoss
from boxmatch.structures import Assignment, Predictions


@pytest.mark.parametrize("average", [{}, {"objectness_average": "positives", "box_average": "all"}])
def test_without_boxes_only_background_is_learned_and_every_output_stays_in_the_graph(average: dict) -> None:
    priors, _, predictions, _ = scene()
    targets, assignment = nobody(priors, 3)
    terms = YOLOLoss(**average)(priors, targets, predictions, assignment, CODER)
    assert terms["objectness"] > 0
    assert terms["box"] == terms["class"] == 0
    for gradient in torch.autograd.grad(sum(terms.values()), leaves(predictions)):
        assert torch.isfinite(gradient).all()


def test_a_level_without_positives_has_no_box_and_class_loss() -> None:
    priors, targets, predictions, assignment = scene()
    rows = assignment.level == 0
    fine = Assignment.hard(assignment.pairs.select(rows), targets, len(priors), levels=priors.levels)
    all_levels = floats(YOLOLoss()(priors, targets, predictions, fine, CODER))
    finest = floats(YOLOLoss(lambda_scales=(1.0, 0.0, 0.0))(priors, targets, predictions, fine, CODER))
    assert all_levels["box"] == pytest.approx(finest["box"])
    assert all_levels["class"] == pytest.approx(finest["class"])
    assert all(math.isfinite(value) for value in all_levels.values())


def test_a_single_class_has_no_class_loss_but_stays_in_the_graph() -> None:
    parts = scene(classes=1)
    terms = YOLOLoss()(*parts, CODER)
    assert terms["class"] == 0
    (gradient,) = torch.autograd.grad(sum(terms.values()), parts[2].logits)
    assert not gradient.any()


def test_all_priors_ignored_gives_zero() -> None:
    priors, _, predictions, _ = scene()
    targets, assignment = nobody(priors, 3)
    assignment = replace(assignment, ignored=torch.ones_like(assignment.ignored))
    terms = YOLOLoss()(priors, targets, predictions, assignment, CODER)
    sum(terms.values()).backward()
    assert [term.item() for term in terms.values()] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou", "siou", "ciou_lite", "siou_lite"])
@pytest.mark.parametrize("size", ["linear", "sigmoid4", "exp"])
def test_terms_and_gradients_are_finite_for_extreme_outputs(kind: Any, size: Any) -> None:
    priors, targets, predictions, assignment = scene()
    random = torch.Generator().manual_seed(2)
    wild = torch.tensor([0.0, -0.0, 1e-20, -5.0, 1e4, -1e4, 1e30, -1e30])
    extreme = Predictions(
        *(
            wild[torch.randint(8, leaf.shape, generator=random)].requires_grad_()
            for leaf in leaves(predictions)[:2]
        ),
        None,
        wild[torch.randint(8, predictions.quality.shape, generator=random)].requires_grad_(),
    )
    # Logits of 1e30 cost 1e30 each: bounded here so that sums stay within float32.
    bounded = replace(
        extreme, logits=extreme.logits.clamp(-1e4, 1e4), quality=extreme.quality.clamp(-1e4, 1e4)
    )
    terms = YOLOLoss(iou_loss_type=kind)(priors, targets, bounded, assignment, GridCoder("all_grid", size))
    assert all(torch.isfinite(term) for term in terms.values())
    for gradient in torch.autograd.grad(sum(terms.values()), leaves(extreme)):
        assert torch.isfinite(gradient).all()


def test_half_precision_under_autocast_is_computed_in_float32() -> None:
    priors, targets, predictions, assignment = scene()
    half = Predictions(
        predictions.logits.bfloat16(), predictions.deltas.bfloat16(), None, predictions.quality.bfloat16()
    )
    single = Predictions(half.logits.float(), half.deltas.float(), None, half.quality.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = YOLOLoss()(priors, targets, half, assignment, CODER)
    expected = YOLOLoss()(priors, targets, single, assignment, CODER)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert_close(found[name], value)


@pytest.mark.parametrize(
    "options",
    [
        {"iou_loss_type": "eiou"},
        {"focal_loss_gamma": 0.5},
        {"class_focal_gamma": 0.5},
        {"assign_conf_method": "box"},
        {"objectness_average": "images"},
        {"box_average": "level"},
        {"lambda_obj": -1.0},
        {"lambda_scales": (1.0, float("nan"), 1.0)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_does_not_exist_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(options))):
        YOLOLoss(**options)


def test_another_number_of_levels_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"lambda_scales.*3 levels"):
        YOLOLoss(lambda_scales=(1.0, 1.0))(*scene(), CODER)


def test_predictions_without_objectness_are_refused() -> None:
    priors, targets, predictions, assignment = scene()
    with pytest.raises(ValueError, match="quality"):
        YOLOLoss()(priors, targets, replace(predictions, quality=None), assignment, CODER)
