"""Boxes of deltas: ranges, order, signs, and the way back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from boxmatch.coders import MAX_LOG_SIZE, GridCoder, GridMethod, SizeDecode
from boxmatch.priors import AnchorGrid, Priors

METHODS: tuple[GridMethod, ...] = ("single_grid", "nearby_grid", "all_grid")
SIZE_DECODES: tuple[SizeDecode, ...] = ("linear", "sigmoid4", "exp")


def two_levels() -> Priors:
    """2 × 3 cells of 8 px, then 1 × 2 cells of 16 px, two anchors each: 16 priors."""
    grid = AnchorGrid([[(10, 20), (8, 8)], [(30, 12), (40, 40)]], [8, 16])
    return grid([(2, 3), (1, 2)], torch.device("cpu"))


def test_single_grid_puts_a_zero_delta_in_the_middle_of_the_cell() -> None:
    box = GridCoder("single_grid").decode(
        torch.tensor([[0.0, 0.0, 0.25, 0.25]]), two_levels(), torch.tensor([2])
    )
    assert_close(box, torch.tensor([[12.0, 4.0, 10.0, 20.0]]))  # second cell of the first row, first anchor


def test_nearby_grid_puts_a_zero_delta_in_the_middle_of_the_cell() -> None:
    box = GridCoder("nearby_grid").decode(
        torch.tensor([[0.0, 0.0, 0.5, 0.25]]), two_levels(), torch.tensor([3])
    )
    assert_close(box, torch.tensor([[12.0, 4.0, 16.0, 8.0]]))


def test_all_grid_puts_a_zero_delta_on_the_corner_of_the_cell() -> None:
    box = GridCoder("all_grid").decode(
        torch.tensor([[0.0, 0.0, 0.25, 0.25]]), two_levels(), torch.tensor([14])
    )
    assert_close(box, torch.tensor([[16.0, 0.0, 30.0, 12.0]]))


def test_all_grid_reaches_across_the_columns_and_the_rows_of_its_own_level() -> None:
    far = torch.tensor([[50.0, 50.0, 0.25, 0.25], [-50.0, -50.0, 0.25, 0.25]])
    boxes = GridCoder("all_grid").decode(far, two_levels(), torch.tensor([0, 0]))
    assert_close(
        boxes[:, :2], torch.tensor([[24.0, 16.0], [-24.0, -16.0]])
    )  # three columns, two rows of 8 px


def test_all_grid_with_a_training_size_means_the_same_box_at_every_input_size() -> None:
    coder = GridCoder("all_grid", training_size=(16, 24))
    grid = AnchorGrid([[(10, 20)]], [8])
    deltas = torch.tensor([[0.3, -0.2, 0.25, 0.25]])
    small, large = grid([(2, 3)], torch.device("cpu")), grid([(7, 9)], torch.device("cpu"))
    boxes = [coder.decode(deltas, priors, torch.tensor([0])) for priors in (small, large)]
    assert_close(boxes[0], boxes[1])
    assert_close(boxes[0], GridCoder("all_grid").decode(deltas, small, torch.tensor([0])))


@pytest.mark.parametrize("method", ["single_grid", "nearby_grid"])
def test_centres_stay_within_the_reach_of_the_method(method: GridMethod) -> None:
    far = torch.tensor([[60.0, -60.0, 0.0, 0.0]])
    center = GridCoder(method).decode(far, two_levels(), torch.tensor([2]))[0, :2]
    # The cell spans 8..16 and 0..8; its block 0..24 and -8..16.
    assert_close(center, torch.tensor([16.0, 0.0] if method == "single_grid" else [24.0, -8.0]))


def test_linear_sizes_may_be_negative_and_the_others_never_are() -> None:
    deltas, prior = torch.tensor([[0.0, 0.0, -0.25, -9.0]]), torch.tensor([0])
    assert_close(
        GridCoder("single_grid").decode(deltas, two_levels(), prior)[0, 2:], torch.tensor([-10.0, -720.0])
    )
    for wh_decode in ("sigmoid4", "exp"):
        assert (GridCoder("single_grid", wh_decode).decode(deltas, two_levels(), prior)[0, 2:] > 0).all()


def test_a_zero_delta_means_twice_the_anchor_under_sigmoid4_and_the_anchor_under_exp() -> None:
    deltas, prior = torch.zeros(1, 4), torch.tensor([0])
    sizes = [
        GridCoder("single_grid", w).decode(deltas, two_levels(), prior)[0, 2:] for w in ("sigmoid4", "exp")
    ]
    assert_close(sizes[0], torch.tensor([20.0, 40.0]))
    assert_close(sizes[1], torch.tensor([10.0, 20.0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wh_decode", ["sigmoid4", "exp"])
def test_bounded_sizes_are_finite_for_every_finite_delta(method: GridMethod, wh_decode: SizeDecode) -> None:
    deltas = torch.tensor([[3e38, -3e38, 3e38, -3e38]], requires_grad=True)
    boxes = GridCoder(method, wh_decode).decode(deltas, two_levels(), torch.tensor([0]))
    boxes.sum().backward()
    assert torch.isfinite(boxes).all() and torch.isfinite(deltas.grad).all()
    assert (boxes[0, 2:] <= max(4, math.exp(MAX_LOG_SIZE) + 1e-3) * torch.tensor([10.0, 20.0])).all()


def test_the_bound_of_the_size_is_the_callers() -> None:
    deltas, prior = torch.tensor([[0.0, 0.0, 5.0, -5.0]]), torch.tensor([0])
    unbounded = GridCoder("single_grid", "exp", max_log_size=10.0).decode(deltas, two_levels(), prior)
    assert_close(unbounded[0, 2:], torch.tensor([10.0 * math.exp(5), 20.0 * math.exp(-5)]))
    bounded = GridCoder("single_grid", "exp", max_log_size=0.5)
    boxes = bounded.decode(deltas, two_levels(), prior)
    assert_close(boxes[0, 2:], torch.tensor([10.0 * math.exp(0.5), 20.0 * math.exp(-0.5)]))
    assert_close(bounded.encode(unbounded, two_levels(), prior)[0, 2:], torch.tensor([0.5, -0.5]))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_of_the_size_that_bounds_nothing_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="finite max_log_size"):
        GridCoder("single_grid", "exp", max_log_size=bound)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wh_decode", SIZE_DECODES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_encode_is_the_inverse_of_decode(method: GridMethod, wh_decode: SizeDecode, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    priors, coder = two_levels(), GridCoder(method, wh_decode)
    prior = torch.randint(16, (20,), generator=random)
    deltas = torch.rand((20, 4), generator=random) * 3 - 1.5
    boxes = coder.decode(deltas, priors, prior)
    assert_close(coder.encode(boxes, priors, prior), deltas, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wh_decode", SIZE_DECODES)
def test_encode_of_an_unreachable_box_is_finite(method: GridMethod, wh_decode: SizeDecode) -> None:
    boxes = torch.tensor([[-1e4, 1e4, 0.0, 1e6]])
    assert torch.isfinite(GridCoder(method, wh_decode).encode(boxes, two_levels(), torch.tensor([0]))).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wh_decode", SIZE_DECODES)
def test_the_full_batch_form_equals_the_form_on_rows(method: GridMethod, wh_decode: SizeDecode) -> None:
    priors, coder = two_levels(), GridCoder(method, wh_decode)
    deltas = torch.randn((3, 16, 4), generator=torch.Generator().manual_seed(0))
    rows = coder.decode(deltas.reshape(-1, 4), priors, torch.arange(16).repeat(3))
    assert torch.equal(coder.decode_all(deltas, priors).reshape(-1, 4), rows)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wh_decode", SIZE_DECODES)
def test_gradients_agree_with_differences(method: GridMethod, wh_decode: SizeDecode) -> None:
    coder, priors, prior = GridCoder(method, wh_decode), two_levels(), torch.tensor([1, 13])
    deltas = torch.tensor([[0.3, -0.4, 0.2, 0.5], [-0.6, 0.1, 0.4, 0.3]], requires_grad=True)
    coder.decode(deltas, priors, prior).square().sum().backward()
    step = 1e-2
    for row, column in ((0, 0), (0, 3), (1, 1), (1, 2)):
        shift = torch.zeros_like(deltas)
        shift[row, column] = step
        up, down = (
            coder.decode((deltas + s).detach(), priors, prior).square().sum() for s in (shift, -shift)
        )
        assert_close(deltas.grad[row, column], (up - down) / (2 * step), rtol=1e-2, atol=1.0)


def test_no_row_gives_no_box() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for method in METHODS:
        assert GridCoder(method).decode(torch.zeros(0, 4), two_levels(), none).shape == (0, 4)


def test_half_precision_deltas_are_decoded_in_float32() -> None:
    deltas = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes = GridCoder("nearby_grid").decode(deltas.bfloat16(), two_levels(), torch.tensor([0]))
    assert boxes.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [
        {"method": "grid"},
        {"method": "all_grid", "wh_decode": "log"},
        {"method": "single_grid", "training_size": (8, 8)},
    ],
)
def test_an_option_that_does_not_exist_is_refused(options: dict) -> None:
    with pytest.raises((ValueError, TypeCheckError)):
        GridCoder(**options)
