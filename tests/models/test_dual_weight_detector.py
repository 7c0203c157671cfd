"""Dual weighting as a whole detector: what its users met in the original must not happen here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from boxmatch.bench.measure import peak_mebibytes
from boxmatch.models import dual_weight
from boxmatch.models.dense import DenseDetector
from boxmatch.models.dense_head import LevelMaps
from boxmatch.structures import Targets

NAMES = ("a", "b", "c")
TARGETS = Targets.from_lists([[[4, 4, 60, 44], [30, 20, 90, 90]], [[50, 8, 58, 16]]], [[0, 1], [2]])


def small(**options: Any) -> DenseDetector:
    torch.manual_seed(0)
    narrow: dict[str, Any] = {"backbone": "resnet18", "channels": 32, "tower_length": 1}
    return dual_weight(NAMES, **(narrow | options)).train()


def pictures() -> Tensor:
    return torch.rand((2, 3, 96, 96), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("refine", [None, "zeros", "clamp"])
def test_anomaly_detection_finds_nothing_multiplied_in_place(refine: str | None):
    detector = small(refine=refine)
    with torch.autograd.set_detect_anomaly(True):
        torch.stack(list(detector.losses(pictures(), TARGETS).values())).sum().backward()
    weights = [weight for weight in detector.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_loss_of_the_whole_network_within_one_percent(dtype: torch.dtype):
    detector = small()
    full = {name: float(term.detach()) for name, term in detector.losses(pictures(), TARGETS).items()}
    with torch.autocast("cpu", dtype=dtype):
        terms = detector.losses(pictures(), TARGETS)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(full, rel=0.01)


def test_a_box_of_32_px_costs_less_than_a_megabyte_with_loss_and_gradient():
    detector = small()
    priors = detector.priors((320, 512))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made = detector(torch.zeros((1, 3, 320, 512)))

    def peak(count: int) -> float:
        corner = torch.rand((count, 2), generator=random) * torch.tensor([480.0, 288.0])
        targets = Targets.from_lists([torch.cat((corner, corner + 32), 1)], [torch.zeros(count).long()])
        leaves = [part.clone().requires_grad_() for part in (made.logits, made.boxes, made.quality)]
        predictions = replace(made, logits=leaves[0], boxes=leaves[1], quality=leaves[2])

        def step() -> None:
            assignment = detector.assign(priors, targets, predictions)
            terms = detector.loss(priors, targets, predictions, assignment, detector.coder)
            torch.autograd.grad(sum(terms.values()), leaves)

        return peak_mebibytes(step, torch.device("cpu"))

    assert (peak(600) - peak(100)) / 500 < 0.02  # a fiftieth of the limit


class SoftmaxHead(DenseDetector):
    """A head whose last layer is a softmax over the classes, as somebody might bring one along."""

    logarithm = True

    def flatten(self, maps: Sequence[LevelMaps]) -> tuple[Tensor, Tensor, Tensor | None]:
        logits, boxes, quality = super().flatten(maps)
        return (logits.log_softmax(2) if self.logarithm else logits.softmax(2)), boxes, quality


@pytest.mark.parametrize("logarithm", [True, False])
def test_a_head_with_a_softmax_is_refused_and_told_what_to_do(logarithm: bool):
    detector = small()
    detector.__class__ = SoftmaxHead
    detector.logarithm = logarithm
    with pytest.raises(
        ValueError, match=r"DualWeight: .* come from a softmax: .* Use a head with one sigmoid"
    ):
        detector.losses(pictures(), TARGETS)


def test_distances_are_in_pixels_and_boxes_follow_from_them():
    detector = small(refine=None)
    with torch.no_grad():
        detector.head.boxes.weight.zero_()  # the bias alone: four strides to each side
    predictions = detector(pictures())
    priors = detector.priors(pictures())
    assert torch.equal(predictions.deltas[0], (4 * priors.stride)[:, None].expand(-1, 4).float())
    reach = 4.0 * priors.stride[:, None]
    expected = torch.cat((priors.centers - reach, priors.centers + reach), 1)
    assert predictions.boxes is not None and torch.equal(predictions.boxes[0], expected)


@pytest.mark.parametrize("weight, term", [("class_weight", "class_positive"), ("loc_weight", "box")])
def test_each_term_has_a_weight_of_its_own(weight: str, term: str):
    detector = small()
    before = {name: float(value.detach()) for name, value in detector.losses(pictures(), TARGETS).items()}
    setattr(detector.loss, weight, 2 * getattr(detector.loss, weight))
    after = {name: float(value.detach()) for name, value in detector.losses(pictures(), TARGETS).items()}
    assert after == pytest.approx(before | {term: 2 * before[term]})
