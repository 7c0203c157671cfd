"""Counting operations."""

import pytest
from torch import nn

from boxmatch.models import YOLO
from boxmatch.models.cost import multiply_accumulates


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 10 * 12 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 8 * 5 * 6 * 3 * 9),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 6 * 10 * 12 * 9),
        (nn.Linear(12, 5), 3 * 10 * 12 * 5),
        (nn.MaxPool2d(2), 0),
    ],
    ids=["plain", "stride 2", "depthwise", "linear", "nothing to multiply"],
)
def test_each_output_counts_the_weights_that_lead_to_it(layer: nn.Module, expected: int) -> None:
    assert multiply_accumulates(layer, 10, 12) == expected


def test_the_detector_of_the_baseline_needs_1_16_giga_operations() -> None:
    detector = YOLO(["RBC", "WBC", "Platelets"], channel_sparsity=0.5)
    assert detector.num_parameters == 3_460_768
    assert multiply_accumulates(detector, 320, 320) == pytest.approx(1.16e9, rel=0.005)
    assert next(detector.parameters()).device.type == "cpu"
