"""Similarities and focal losses equal the reference's values and gradients, element by element."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from yolo_case import similarity_name

from boxmatch.boxes import cxcywh_to_xyxy
from boxmatch.losses import bce, box_similarity, focal_loss


@pytest.fixture(scope="module")
def units(golden_yolo: Path) -> dict[str, torch.Tensor]:
    with np.load(golden_yolo / "units.npz") as content:
        return {name: torch.from_numpy(content[name]) for name in content.files}


@pytest.mark.parametrize("kind", ["iou", "ciou", "diou", "giou", "siou"])
def test_similarity_equals_the_reference(units: dict[str, torch.Tensor], kind: str) -> None:
    boxes = units["iou_pred"].clone().requires_grad_()
    similarity = box_similarity(
        cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(units["iou_target"]), similarity_name(kind), 1e-6
    )
    loss = 1 - similarity
    loss.sum().backward()
    assert_close(loss.detach(), units[f"loss_{kind}"], rtol=1e-4, atol=1e-6)
    assert_close(boxes.grad, units[f"grad_{kind}"], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("gamma", ["0.0", "1.5", "2.0", "3.5"])
def test_focal_loss_equals_the_reference(units: dict[str, torch.Tensor], gamma: str) -> None:
    logits = units["bce_logit"].clone().requires_grad_()
    loss = focal_loss(logits, units["bce_label"], float(gamma))
    loss.sum().backward()
    assert_close(loss.detach(), units[f"focal_{gamma}"], rtol=1e-4, atol=1e-7)
    assert_close(logits.grad, units[f"focal_grad_{gamma}"], rtol=2e-3, atol=1e-6)


def test_cross_entropy_equals_the_focal_loss_without_exponent(units: dict[str, torch.Tensor]) -> None:
    assert_close(bce(units["bce_logit"], units["bce_label"]), units["focal_0.0"], rtol=1e-4, atol=1e-7)
