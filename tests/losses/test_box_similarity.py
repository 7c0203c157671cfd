"""The IoU family: known values, symmetries, finite everywhere, gradients as differences say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from boxmatch.losses import SimilarityKind, box_similarity
from boxmatch.losses.box_similarity import check_similarity

KINDS: tuple[SimilarityKind, ...] = ("iou", "giou", "diou", "ciou", "siou", "ciou_lite", "siou_lite")

# Unit squares side by side, one apart: every term is a small fraction.
SQUARE, APART = [0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]

# Four pairs of the golden units (cxcywh, normalised), the last with a negative height; values are 1 -
# similarity.
LITERAL_BOXES = [
    [0.2694588, 0.3042408, 0.5235827, 0.365669],
    [0.7818199, 0.8088563, 0.3034844, 0.009323664],
    [0.4380915, 0.8754115, 0.155137, 0.2159534],
    [0.4441477, 0.5861706, 0.04600101, -0.04119395],
]
LITERAL_TARGETS = [
    [0.3320555, 0.3589634, 0.51722, 0.3973882],
    [0.762958, 0.8089947, 0.2716135, 0.04468911],
    [0.4108354, 0.8802074, 0.02324375, 0.2985902],
    [0.3715601, 0.5977709, 0.05193846, 0.01912213],
]
LITERAL_LOSSES: dict[SimilarityKind, list[float]] = {
    "iou": [0.3952153, 0.7990016, 0.8583012, 1.0],
    "giou": [0.4225485, 0.8888659, 1.093587, 2.387364],
    "diou": [0.4082535, 0.8027122, 0.8650656, 1.356837],
    "ciou_lite": [0.4083059, 0.8031559, 0.8725967, 1.359989],
    "siou_lite": [0.3952677, 0.7994454, 0.8658323, 1.003152],
}


def similarity(box: list[float], target: list[float], kind: SimilarityKind, eps: float = 1e-9) -> float:
    return float(box_similarity(torch.tensor([box]), torch.tensor([target]), kind, eps))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_boxes_have_similarity_one(kind: SimilarityKind) -> None:
    assert similarity([0.2, 0.3, 0.5, 0.9], [0.2, 0.3, 0.5, 0.9], kind) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("iou", 0.0),
        ("giou", -1 / 3),  # enclosing 3, union 2
        ("diou", -4 / 10),  # centres 2 apart, diagonal² 10
        ("ciou", -4 / 10),
        ("ciou_lite", -4 / 10),
        ("siou_lite", 0.0),
        # Angle cost 0 (side by side), so gamma = 2; rho_x = (2 / 3)², rho_y = 0; equal shapes.
        ("siou", -(1 - math.exp(-2 * 4 / 9)) / 2),
    ],
)
def test_values_of_two_squares_side_by_side(kind: SimilarityKind, expected: float) -> None:
    assert similarity(SQUARE, APART, kind) == pytest.approx(expected, abs=1e-6)


def test_aspect_terms_of_a_flat_box_inside_a_square() -> None:
    flat, square = [0.0, 1.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]  # one centre, IoU 1/2
    difference = (math.atan(4 / 2) - math.atan(1)) ** 2
    v = 4 / math.pi**2 * difference
    assert similarity(flat, square, "diou") == pytest.approx(0.5, abs=1e-6)
    assert similarity(flat, square, "ciou") == pytest.approx(0.5 - v * v / (0.5 + v), abs=1e-6)
    assert similarity(flat, square, "ciou_lite") == pytest.approx(
        0.5 - difference / (4 * math.pi**2), abs=1e-6
    )
    assert similarity(flat, square, "siou_lite") == pytest.approx(
        0.5 - difference / (4 * math.pi**2), abs=1e-6
    )
    shape = (1 - math.exp(-2 / 4)) ** 4  # heights 2 and 4
    assert similarity(flat, square, "siou") == pytest.approx(0.5 - shape / 2, abs=1e-6)


def test_siou_is_the_paper_with_its_arcsin() -> None:
    box, target = [0.0, 0.0, 2.0, 1.0], [1.0, 0.5, 4.0, 3.5]
    dx, dy = 2.5 - 1.0, 2.0 - 0.5
    sine = dy / math.hypot(dx, dy)
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    distance = sum(1 - math.exp((angle - 2) * (d / side) ** 2) for d, side in ((dx, 4.0), (dy, 3.5)))
    shape = sum((1 - math.exp(-abs(a - b) / max(a, b))) ** 4 for a, b in ((2.0, 3.0), (1.0, 3.0)))
    iou = 0.5 / (2 + 9 - 0.5)
    assert similarity(box, target, "siou") == pytest.approx(iou - (distance + shape) / 2, abs=1e-6)


def test_similarities_keep_literal_values_of_the_reference() -> None:
    boxes, targets = torch.tensor(LITERAL_BOXES), torch.tensor(LITERAL_TARGETS)
    corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in (boxes, targets)]
    for kind, losses in LITERAL_LOSSES.items():
        assert_close(1 - box_similarity(*corners, kind), torch.tensor(losses), rtol=1e-4, atol=1e-6)


def nasty_boxes() -> Tensor:
    """Every pair of these is something a network in trouble may produce."""
    return torch.tensor(
        [
            [0.2, 0.3, 0.6, 0.9],
            [0.6, 0.9, 0.2, 0.3],  # inverted both ways
            [0.6, 0.3, 0.2, 0.9],  # inverted one way
            [0.4, 0.4, 0.4, 0.4],  # a point
            [0.0, 0.0, 0.0, 0.0],  # the origin
            [0.1, 0.5, 0.9, 0.5],  # a line
            [1e-30, 1e-30, 2e-30, 3e-30],
            [-3e38, -3e38, 3e38, 3e38],
            [3e38, -3e38, -3e38, 3e38],
            [1e6, 1e6, 1e6 + 1, 1e6 + 1],
            [-1e3, 0.4, 1e3, 0.4001],
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_finite_on_every_pair_of_nasty_boxes(kind: SimilarityKind) -> None:
    boxes = nasty_boxes()
    left = boxes.repeat_interleave(len(boxes), 0).requires_grad_()
    right = boxes.repeat(len(boxes), 1)
    values = box_similarity(left, right, kind)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(left.grad).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=8, max_size=8))
def test_value_and_gradient_are_finite_on_any_finite_input(kind: SimilarityKind, values: list[float]) -> None:
    box = torch.tensor([values[:4]], requires_grad=True)
    found = box_similarity(box, torch.tensor([values[4:]]), kind)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(box.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_differences(kind: SimilarityKind) -> None:
    boxes = torch.tensor(
        [[0.1, 0.2, 0.5, 0.7], [0.0, 0.0, 0.2, 0.1]], dtype=torch.float64, requires_grad=True
    )
    targets = torch.tensor([[0.2, 0.1, 0.6, 0.45], [0.5, 0.6, 0.9, 0.7]], dtype=torch.float64)
    if kind != "ciou":  # its alpha has no gradient by definition
        assert torch.autograd.gradcheck(lambda x: box_similarity(x, targets, kind), boxes)
    else:
        box_similarity(boxes, targets, kind).sum().backward()
        assert torch.isfinite(boxes.grad).all()


def test_the_trade_off_of_ciou_has_no_gradient() -> None:
    box = torch.tensor([[0.0, 1.0, 4.0, 3.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 4.0, 4.0]], dtype=torch.float64)
    (full,) = torch.autograd.grad(box_similarity(box, target, "ciou", 1e-9), box)
    (plain,) = torch.autograd.grad(box_similarity(box, target, "diou", 1e-9), box)
    width, height = 4.0, 2.0
    angle = math.atan2(width, height) - math.pi / 4
    v = 4 / math.pi**2 * angle**2
    alpha = v / (1 - 0.5 + v)
    slope = 8 / math.pi**2 * angle / (width**2 + height**2)
    d_width, d_height = -alpha * slope * height, alpha * slope * width
    expected = torch.tensor([[-d_width, -d_height, d_width, d_height]], dtype=torch.float64)
    assert_close(full - plain, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_gives_no_value(kind: SimilarityKind) -> None:
    assert box_similarity(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_an_inverted_box_overlaps_nothing() -> None:
    assert similarity([0.6, 0.9, 0.2, 0.3], [0.2, 0.3, 0.6, 0.9], "iou") == 0


def test_an_unknown_similarity_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"iou_loss_type.*ciou_lite"):
        check_similarity("eiou", "iou_loss_type")
