"""Hungarian matching on paper, and against all matchings there are."""

import sys

import pytest
import torch
from every_assigner import one_level_priors, random_boxes
from hungarian_loops import costs, least_total
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import Hungarian
from boxmatch.assign.query_cost import ClassCost
from boxmatch.priors import Priors
from boxmatch.structures import REASONS, Predictions, Targets

SIZE = (64.0, 96.0)


def make_predictions(images: int, queries: int, classes: int, seed: int, logits: float = 1.0) -> Predictions:
    """Random boxes and logits, `logits` times a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(queries, 1000 * seed + image) for image in range(images)]
    return Predictions(
        logits=logits * torch.randn((images, queries, classes), generator=generator),
        deltas=torch.zeros(images, queries, 4),
        boxes=torch.stack(boxes),
    )


def make_targets(counts: list[int], classes: int, seed: int) -> Targets:
    """Random boxes for each image."""
    boxes = [random_boxes(count, 77 * seed + image) for image, count in enumerate(counts)]
    return Targets.from_lists(boxes, [torch.arange(count) % classes for count in counts])


def queries(count: int) -> Priors:
    """Where queries start does not matter to the matching."""
    return Priors.from_boxes(torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(count, 1))


def test_each_box_gets_the_query_that_serves_all_best():
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 32.0, 36.0]])
    predicted = torch.tensor([[0.0, 0.0, 32.0, 35.0], [60.0, 0.0, 92.0, 32.0], [0.0, 0.0, 32.0, 33.0]])
    predictions = Predictions(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4), predicted[None])
    assignment = Hungarian(image_size=SIZE)(queries(3), Targets.from_lists([boxes], [[0, 0]]), predictions)
    # Both boxes like query 2 and 0 best in this order or the other; query 1 is far from both.
    assert assignment.gt_index().tolist() == [[1, -1, 0]]
    assert assignment.weight.tolist() == assignment.score.tolist() == [1.0, 1.0]


def test_the_class_decides_where_the_boxes_are_equal():
    logits = torch.tensor([[[2.0, -2.0], [-2.0, 2.0]]])
    boxes = torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(1, 2, 4)
    predictions = Predictions(logits, torch.zeros(1, 2, 4), boxes)
    targets = Targets.from_lists([boxes[0]], [[1, 0]])
    kinds: tuple[ClassCost, ...] = ("softmax", "focal")
    for class_cost in kinds:
        rule = Hungarian(class_cost=class_cost, image_size=SIZE)
        assert rule(queries(2), targets, predictions).gt_index().tolist() == [[1, 0]]


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    priors=st.integers(1, 6),
    class_cost=st.sampled_from(["softmax", "focal"]),
    weights=st.sampled_from([(2.0, 5.0, 2.0), (1.0, 5.0, 2.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.5)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_other_matching_costs_less(
    counts: list[int], priors: int, class_cost: ClassCost, weights: tuple[float, float, float], seed: int
) -> None:
    targets = make_targets(counts, 3, seed)
    predictions = make_predictions(len(counts), priors, 3, seed)
    assert predictions.boxes is not None
    rule = Hungarian(
        class_cost=class_cost,
        class_weight=weights[0],
        box_weight=weights[1],
        giou_weight=weights[2],
        image_size=SIZE,
    )
    pairs = rule(queries(priors), targets, predictions).pairs
    for image, count in enumerate(counts):
        rows = (targets.image == image).nonzero().squeeze(1)
        cost = costs(
            predictions.logits[image],
            predictions.boxes[image],
            targets.boxes[rows],
            targets.labels[rows],
            class_cost=class_cost,
            weights=weights,
            size=SIZE,
        )
        mine = (targets.image[pairs.gt] == image).nonzero().squeeze(1)
        gts, columns = (pairs.gt[mine] - sum(counts[:image])).tolist(), pairs.prior[mine].tolist()
        assert len(set(gts)) == len(set(columns)) == len(gts) == min(count, priors)
        if count:
            total = sum(cost[gt][column] for gt, column in zip(gts, columns))
            assert total == pytest.approx(least_total(cost), abs=1e-5)


def test_repeats_give_each_box_several_queries_as_long_as_there_are_enough():
    targets, predictions = make_targets([2, 5], 3, 1), make_predictions(2, 8, 3, 1)
    positives = Hungarian(repeats=3, image_size=SIZE)(queries(8), targets, predictions).stats().positives
    assert positives.tolist() == [3, 3, 1, 1, 1, 1, 1]
    # Each further query is the next best, so the first choice of an only box is that of no repetition.
    alone = Targets.from_lists([targets.boxes[:1], []], [[0], []])
    once = Hungarian(image_size=SIZE)(queries(8), alone, predictions)
    thrice = Hungarian(repeats=3, image_size=SIZE)(queries(8), alone, predictions)
    assert set(once.pairs.prior.tolist()) < set(thrice.pairs.prior.tolist())


def test_groups_are_matched_each_by_itself():
    targets, predictions = make_targets([3, 1], 3, 2), make_predictions(2, 8, 3, 2)
    assert predictions.boxes is not None
    together = Hungarian(groups=2, image_size=SIZE)(queries(8), targets, predictions).gt_index()
    for group in (slice(0, 4), slice(4, 8)):
        part = Predictions(
            predictions.logits[:, group], predictions.deltas[:, group], predictions.boxes[:, group]
        )
        alone = Hungarian(image_size=SIZE)(queries(4), targets, part).gt_index()
        assert torch.equal(together[:, group], alone)
    with pytest.raises(ValueError, match="3 groups divide, got 8"):
        Hungarian(groups=3, image_size=SIZE)(queries(8), targets, predictions)


def test_shares_of_the_picture_and_pixels_are_matched_alike():
    targets, predictions = make_targets([5, 4], 3, 3), make_predictions(2, 20, 3, 3)
    assert predictions.boxes is not None
    height, width = SIZE
    whole = torch.tensor([width, height, width, height])
    shares = Targets.from_lists(
        [targets.boxes[:5] / whole, targets.boxes[5:] / whole], [targets.labels[:5], targets.labels[5:]]
    )
    scaled = Predictions(predictions.logits, predictions.deltas, predictions.boxes / whole)
    pixels = Hungarian(image_size=SIZE)(queries(20), targets, predictions).gt_index()
    assert torch.equal(Hungarian(image_size=(1, 1))(queries(20), shares, scaled).gt_index(), pixels)


def test_a_grid_tells_the_size_of_the_picture():
    priors = one_level_priors(8, 12, 8, [(8, 8)])  # 64 × 96 px
    targets, predictions = make_targets([6], 3, 4), make_predictions(1, 96, 3, 4)
    by_grid = Hungarian(box_weight=50.0)(priors, targets, predictions).gt_index()
    by_size = Hungarian(box_weight=50.0, image_size=SIZE)(queries(96), targets, predictions).gt_index()
    assert torch.equal(by_grid, by_size)
    with pytest.raises(ValueError, match="give image_size="):
        Hungarian()(queries(96), targets, predictions)


def test_what_was_not_matched_is_told_apart():
    targets, predictions = make_targets([2], 3, 5), make_predictions(1, 4, 3, 5)
    rule = Hungarian(image_size=SIZE)
    assignment = rule(queries(4), targets, predictions, explain=True)
    assert torch.equal(assignment.gt_index(), rule(queries(4), targets, predictions).gt_index())
    explanation = assignment.explanation
    assert explanation is not None and len(explanation) == 8
    owner = assignment.gt_index()[0].tolist()
    for gt, prior, reason in zip(
        explanation.pairs.gt.tolist(), explanation.pairs.prior.tolist(), explanation.reason.tolist()
    ):
        taken = "kept" if owner[prior] == gt else "lost_to_gt"
        assert REASONS[reason] == ("not_topk" if owner[prior] < 0 else taken)


def test_saturated_logits_and_wild_boxes_are_finite_costs():
    targets = make_targets([3], 3, 6)
    predictions = make_predictions(1, 10, 3, 6, logits=1e30)
    assert predictions.boxes is not None
    wild = Predictions(predictions.logits, predictions.deltas, predictions.boxes * 1e30)
    kinds: tuple[ClassCost, ...] = ("softmax", "focal")
    for class_cost in kinds:
        rule = Hungarian(class_cost=class_cost, image_size=SIZE)
        assert len(rule(queries(10), targets, wild).pairs) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_cost": "hinge"},
        {"class_weight": -1.0},
        {"class_weight": 0.0, "box_weight": 0.0, "giou_weight": 0.0},
        {"giou_weight": float("inf")},
        {"box_weight": float("nan")},
        {"repeats": 0},
        {"groups": 0},
        {"image_size": (0, 64)},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        Hungarian(**arguments)


def test_a_label_that_is_no_class_and_missing_boxes_are_refused():
    targets, predictions = make_targets([3], 3, 7), make_predictions(1, 4, 2, 7)
    with pytest.raises(ValueError, match="expected labels below 2"):
        Hungarian(image_size=SIZE)(queries(4), targets, predictions)
    without = Predictions(predictions.logits, predictions.deltas)
    with pytest.raises(ValueError, match="decoded boxes"):
        Hungarian(image_size=SIZE)(queries(4), make_targets([1], 2, 7), without)


def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"pip install 'boxmatch\[hungarian\]'"):
        Hungarian()
