"""Deltas to boxes and back: by hand, against torchvision's coder, at the edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder

from boxmatch.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from boxmatch.coders import MAX_LOG_SIZE
from boxmatch.delta_coder import DeltaCoder
from boxmatch.priors import AnchorGrid

PRIORS = AnchorGrid([[(20, 10)], [(64, 64)]], (8, 16))([(2, 3), (1, 2)])  # the first at (4, 4)
FIRST = torch.tensor([0])


def test_a_zero_delta_is_the_anchor() -> None:
    anchors = xyxy_to_cxcywh(PRIORS.boxes)
    assert torch.equal(
        DeltaCoder().decode_all(torch.zeros(2, len(PRIORS), 4), PRIORS), anchors.expand(2, -1, -1)
    )


def test_offsets_are_shares_of_the_anchor_and_sizes_logarithms() -> None:
    # Half an anchor to the right, a fifth of one up, twice as wide, half as high.
    deltas = torch.tensor([[5.0, -2.0, 5 * math.log(2), -5 * math.log(2)]])
    box = torch.tensor([[14.0, 2.0, 40.0, 5.0]])
    assert_close(DeltaCoder().decode(deltas, PRIORS, FIRST), box)
    assert_close(DeltaCoder().encode(box, PRIORS, FIRST), deltas)
    assert_close(DeltaCoder().encode_xyxy(cxcywh_to_xyxy(box), PRIORS, FIRST), deltas)


def test_other_weights_stretch_the_deltas() -> None:
    deltas = torch.tensor([[0.5, -0.2, math.log(2), -math.log(2)]])
    box = DeltaCoder(weights=(1.0, 1.0, 1.0, 1.0)).decode(deltas, PRIORS, FIRST)
    assert_close(box, torch.tensor([[14.0, 2.0, 40.0, 5.0]]))


def test_a_size_is_bounded_from_above_only() -> None:
    box = DeltaCoder().decode(torch.tensor([[0.0, 0.0, 1e4, -1e4]]), PRIORS, FIRST)
    assert_close(box, torch.tensor([[4.0, 4.0, 20 * 1000 / 16, 0.0]]))
    box = DeltaCoder(max_log_size=1.0).decode(torch.tensor([[0.0, 0.0, 1e4, 0.0]]), PRIORS, FIRST)
    assert_close(box, torch.tensor([[4.0, 4.0, 20 * math.e, 10.0]]))


def test_a_box_without_extent_has_finite_deltas_and_comes_back() -> None:
    point = torch.tensor([[7.0, 3.0, 0.0, 0.0]])
    deltas = DeltaCoder().encode(point, PRIORS, FIRST)
    assert bool(deltas.isfinite().all())
    assert_close(DeltaCoder().decode(deltas, PRIORS, FIRST), point)


@given(
    deltas=st.lists(st.lists(st.floats(-15, 15, width=32), min_size=4, max_size=4), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_coder_of_torchvision(deltas: list[list[float]], seed: int) -> None:
    coder, theirs = DeltaCoder(), BoxCoder((10.0, 10.0, 5.0, 5.0), MAX_LOG_SIZE)
    prior = torch.randint(0, len(PRIORS), (len(deltas),), generator=torch.Generator().manual_seed(seed))
    table = torch.tensor(deltas)
    boxes = cxcywh_to_xyxy(coder.decode(table, PRIORS, prior))
    assert_close(boxes, theirs.decode_single(table, PRIORS.boxes[prior]), rtol=1e-5, atol=1e-4)
    encoded = coder.encode_xyxy(boxes, PRIORS, prior)
    assert_close(encoded, theirs.encode_single(boxes, PRIORS.boxes[prior]), rtol=1e-4, atol=1e-4)
    assert_close(encoded, table, rtol=1e-3, atol=1e-3)


def test_decoding_has_a_gradient() -> None:
    deltas = torch.randn(1, len(PRIORS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deltas.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda values: DeltaCoder().decode_all(values, PRIORS), deltas)


def test_encoding_has_a_gradient() -> None:
    prior = torch.arange(len(PRIORS))
    boxes = xyxy_to_cxcywh(PRIORS.boxes).double() * 1.25
    boxes.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda values: DeltaCoder().encode(values, PRIORS, prior), boxes)


def test_gradients_stay_finite_beyond_the_bound() -> None:
    deltas = torch.tensor([[1e30, -1e30, 1e30, -1e30]], requires_grad=True)
    DeltaCoder().decode(deltas, PRIORS, FIRST).sum().backward()
    assert deltas.grad is not None
    assert bool(deltas.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_deltas_are_decoded_in_float32(dtype: torch.dtype) -> None:
    deltas = torch.linspace(-2, 2, 4 * len(PRIORS)).view(1, -1, 4).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes = DeltaCoder().decode_all(deltas, PRIORS)
    assert torch.equal(boxes, DeltaCoder().decode_all(deltas.float(), PRIORS))


@pytest.mark.parametrize(
    "options",
    [
        {"weights": (10.0, 10.0, 0.0, 5.0)},
        {"weights": (10.0, math.inf, 5.0, 5.0)},
        {"max_log_size": 0.0},
        {"max_log_size": math.nan},
    ],
)
def test_numbers_that_cannot_work_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"weights|max_log_size"):
        DeltaCoder(**options)
