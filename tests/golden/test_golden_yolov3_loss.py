"""Losses and gradients of YOLOv3 against the original."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from yolov3_case import YOLOv3Case, parametrize_cases

from boxmatch.losses import YOLOv3Loss
from boxmatch.structures import Assignment

LOSS = {"rtol": 2e-5, "atol": 2e-5}
GRADIENT = {"rtol": 2e-5, "atol": 3e-5}
"""What the README of the golden files suggests."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case."""
    parametrize_cases(metafunc)


@pytest.fixture
def case(yolov3_file: Path) -> YOLOv3Case:
    """The file."""
    return YOLOv3Case.read(yolov3_file)


def of_layer(case: YOLOv3Case, assignment: Assignment, layer: int) -> Assignment:
    """The same assignment where the other layers take no part."""
    here = case.layer_of(torch.arange(len(case.priors))) == layer
    rows = here[assignment.pairs.prior]
    return replace(
        assignment,
        pairs=assignment.pairs.select(rows),
        weight=assignment.weight[rows],
        score=assignment.score[rows],
        neg_weight=assignment.neg_weight[rows],
        ignored=assignment.ignored | ~here,
    )


def parts(case: YOLOv3Case, raw: dict[int, Tensor], layer: int) -> list[Tensor]:
    """Total, xy, wh, obj and cls of one layer."""
    predictions = case.predictions(raw)
    assignment = case.assigner(case.priors, case.targets, predictions)
    terms = YOLOv3Loss()(case.priors, case.targets, predictions, of_layer(case, assignment, layer))
    return [sum(terms.values()), *(terms[name] for name in ("center", "size", "objectness", "class"))]


def test_the_terms_of_every_layer_are_those_of_the_original(case: YOLOv3Case) -> None:
    totals = torch.zeros(5)
    for layer in case.layers:
        terms = torch.stack(parts(case, case.raw(), layer))
        assert_close(terms, case.array(f"l{layer}_loss64").float(), **LOSS)
        assert_close(terms, case.array(f"l{layer}_loss")[:5].float(), **LOSS)
        totals += terms
    assert_close(totals, case.array("total_loss").float(), **LOSS)


def test_gradients_are_those_of_the_original(case: YOLOv3Case) -> None:
    for layer in case.layers:
        raw = {number: values.requires_grad_() for number, values in case.raw().items()}
        (gradient,) = torch.autograd.grad(parts(case, raw, layer)[0], raw[layer])
        stored = case.array(f"l{layer}_grad")
        assert_close(gradient.flatten()[case.array(f"l{layer}_grad_idx")], stored, **GRADIENT)
        total = gradient.double().abs().sum().item()
        assert total == pytest.approx(case.array(f"l{layer}_grad_abs_sum").item(), rel=2e-5)
