"""AutoAssign on paper, its options, and with its loss against slow loops with a graph."""

import math
from dataclasses import replace

import pytest
import torch
from auto_assign_loops import auto_assigned
from drawn_problems import batches, make_predictions, make_targets
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import AutoAssign
from boxmatch.assign import best_overlap as best_overlap_module
from boxmatch.assign.best_overlap import best_overlap
from boxmatch.losses import AutoAssignLoss
from boxmatch.priors import PointGrid, Priors
from boxmatch.structures import Predictions, Targets

CLASSES = 2
CORNERS = PointGrid((8,), center=0.0)([(1, 5)])  # points x = 0, 8, 16, 24, 32 at y = 0
WIDE = [-4.0, -4.0, 28.0, 4.0]  # holds the points 0 to 3; its centre is (12, 0)
NARROW = [-4.0, -4.0, 12.0, 4.0]  # half of it, with the points 0 and 1


def predicted(boxes: list[list[float]]) -> Predictions:
    """One image; every prior is half sure of each class."""
    count = len(boxes)
    return Predictions(torch.zeros(1, count, CLASSES), torch.zeros(1, count, 4), torch.tensor([boxes]))


def test_every_point_inside_learns_the_box_by_confidence_and_place():
    targets = Targets.from_lists([[WIDE]], [[1]])
    assignment = AutoAssign(CLASSES)(CORNERS, targets, predicted([NARROW, WIDE, WIDE, NARROW, WIDE]))
    assert assignment.pairs.prior.tolist() == [0, 1, 2, 3]
    prior = [math.exp(-(cells**2) / 2) for cells in (1.5, 0.5, 0.5, 1.5)]
    joint = [0.5 * math.exp(-5 * (1 - overlap)) for overlap in (0.5, 1, 1, 0.5)]
    share = [math.exp(3 * p) * w for p, w in zip(joint, prior)]
    assert assignment.weight.tolist() == pytest.approx([one / sum(share) for one in share])
    assert assignment.score.tolist() == pytest.approx(prior)
    # 1 / (1 - IoU) is 2 for NARROW and without bound for WIDE.
    assert assignment.neg_weight.tolist() == pytest.approx([1, 0, 0, 1])


def test_the_learned_mean_and_deviation_move_and_widen_the_prior():
    assigner = AutoAssign(CLASSES)
    with torch.no_grad():
        assigner.mean[1] = torch.tensor([1.0, 0.0])
        assigner.sigma[1] = torch.tensor([2.0, 1.0])
    targets = Targets.from_lists([[WIDE, WIDE]], [[0, 1]])
    assignment = assigner(CORNERS, targets, predicted([WIDE] * 5))
    expected = [math.exp(-(cells**2) / 2) for cells in (1.5, 0.5, 0.5, 1.5)]
    expected += [math.exp(-(cells**2) / 8) for cells in (2.5, 1.5, 0.5, 0.5)]
    assert assignment.score.tolist() == pytest.approx(expected)


def test_the_overlap_that_counts_is_that_with_the_best_box_of_the_picture():
    far = [100.0, 100.0, 116.0, 108.0]
    targets = Targets.from_lists([[WIDE, far]], [[0, 1]])
    # Point 0 predicts the other box in full, and is no background of either.
    assignment = AutoAssign(CLASSES)(CORNERS, targets, predicted([far, NARROW, NARROW, NARROW, WIDE]))
    assert assignment.neg_weight.tolist() == pytest.approx([0, 1, 1, 1])


def test_the_best_overlap_does_not_depend_on_how_many_boxes_are_compared_at_once(monkeypatch):
    targets = make_targets([[[0, 0, 20, 30], [5, 5, 9, 9], [3, 3, 40, 41]], [], [[8, 8, 30, 16]]])
    predictions = make_predictions(CORNERS, targets, seed=3)
    whole = best_overlap(predictions.boxes, targets)
    monkeypatch.setattr(best_overlap_module, "_AT_ONCE", 1)
    assert torch.equal(best_overlap(predictions.boxes, targets), whole)
    assert not whole[1].any() and whole[0].any()


def test_a_box_without_a_point_stays_without_unless_some_are_forced():
    tiny = [2.0, 1.0, 6.0, 3.0]
    targets = Targets.from_lists([[tiny, WIDE]], [[0, 0]])
    predictions = predicted([WIDE] * 5)
    assert AutoAssign(CLASSES)(CORNERS, targets, predictions).stats().starved.tolist() == [0]
    forced = AutoAssign(CLASSES, force_topk=3)(CORNERS, targets, predictions)
    # Points 0 and 8 are 4 px away, point 16 is the next.
    assert forced.pairs.prior.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert forced.pairs.gt.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert float(forced.weight[:3].detach().sum()) == pytest.approx(1)
    everything = AutoAssign(CLASSES, force_topk=9)(CORNERS, targets, predictions)
    assert everything.pairs.prior[:5].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("rule", "value"), [("min", 0.0), ("max", 1.0), ("last", 1.0)])
def test_boxes_of_one_class_that_share_a_point_give_it_one_negative_weight(rule, value):
    targets = Targets.from_lists([[NARROW, WIDE]], [[0, 0]])
    # Point 1 is the better one of NARROW and the worst of WIDE.
    middle = [-4.0, -4.0, 20.0, 4.0]
    assigner = AutoAssign(CLASSES, neg_conflict=rule)
    assignment = assigner(CORNERS, targets, predicted([[-4, -4, 0, 4], middle, WIDE, WIDE, WIDE]))
    shared = assignment.neg_weight[assignment.pairs.prior == 1].tolist()
    assert shared == [pytest.approx(value, abs=1e-6)] * 2


def test_gradients_reach_predictions_and_the_prior_but_not_the_negative_weight():
    targets = Targets.from_lists([[WIDE]], [[1]])
    predictions = predicted([NARROW, WIDE, WIDE, NARROW, WIDE])
    leaf = replace(
        predictions, logits=predictions.logits.requires_grad_(), boxes=predictions.boxes.requires_grad_()
    )
    assigner = AutoAssign(CLASSES)
    assignment = assigner(CORNERS, targets, leaf)
    (assignment.weight * torch.arange(4.0)).sum().backward()
    assert leaf.logits.grad.any() and leaf.boxes.grad.any()
    assert assigner.mean.grad[1].any() and not assigner.mean.grad[0].any()
    assert not assignment.neg_weight.requires_grad
    with torch.no_grad():
        assert not assigner(CORNERS, targets, leaf).weight.requires_grad


def test_an_explanation_names_every_point_inside_and_its_positive_weight():
    targets = Targets.from_lists([[NARROW]], [[0]])
    assignment = AutoAssign(CLASSES)(CORNERS, targets, predicted([WIDE] * 5), explain=True)
    assert assignment.explanation.pairs.prior.tolist() == [0, 1]
    assert torch.equal(assignment.explanation.score, assignment.weight.detach())


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 0},
        {"beta": -1.0},
        {"sharpness": 81.0},
        {"force_topk": -1},
        {"neg_conflict": "mean"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises((ValueError, TypeCheckError), match="xpected"):
        AutoAssign(**{"num_classes": CLASSES, **arguments})


def test_labels_without_a_class_and_predictions_without_boxes_are_refused():
    targets = Targets.from_lists([[WIDE]], [[CLASSES]])
    with pytest.raises(ValueError, match="num_classes=2"):
        AutoAssign(CLASSES)(CORNERS, targets, predicted([WIDE] * 5))
    with pytest.raises(ValueError, match="decoded boxes"):
        AutoAssign(CLASSES)(
            CORNERS,
            Targets.from_lists([[WIDE]], [[0]]),
            Predictions(torch.zeros(1, 5, CLASSES), torch.zeros(1, 5, 4)),
        )


def make_points(center: float) -> Priors:
    """Outside the strategy, because the type checker draws random numbers of its own."""
    return PointGrid((8, 16), center=center)([(4, 5), (2, 3)])


def random_predictions(priors: Priors, targets: Targets, seed: int, quality: bool) -> Predictions:
    """Boxes of positive size near those of the image, random logits; float64 leaves."""
    predictions = make_predictions(priors, targets, seed)
    random = torch.Generator().manual_seed(seed)
    low, high = predictions.boxes[..., :2], predictions.boxes[..., 2:]
    # Half a quarter of a pixel, so that no edge lies on that of a box.
    boxes = torch.cat((torch.minimum(low, high) + 0.125, torch.maximum(low, high) + 1.125), -1)
    shape = (targets.batch_size, len(priors))
    return Predictions(
        logits=torch.randn((*shape, CLASSES), generator=random).double().requires_grad_(),
        deltas=torch.zeros((*shape, 4)),
        boxes=boxes.double().requires_grad_(),
        quality=torch.randn(shape, generator=random).double().requires_grad_() if quality else None,
    )


@given(
    images=batches(),
    seed=st.integers(0, 999),
    center=st.sampled_from([0.0, 0.5]),
    quality=st.booleans(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "beta": st.sampled_from([0.0, 2.0]),
            "sharpness": st.sampled_from([0.0, 5.0]),
            "force_topk": st.integers(1, 9),
            "neg_conflict": st.sampled_from(["max", "last"]),
        },
    ),
)
@settings(max_examples=25, deadline=None)
def test_assignment_loss_and_gradients_equal_the_loops(images, seed, center, quality, options):
    priors, targets = make_points(center), make_targets(images, CLASSES)
    predictions = random_predictions(priors, targets, seed, quality)
    assigner = AutoAssign(CLASSES, **options)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        assigner.mean += torch.randn((CLASSES, 2), generator=random) / 4
        assigner.sigma += torch.rand((CLASSES, 2), generator=random)
    assignment = assigner(priors, targets, predictions)
    terms = AutoAssignLoss(beta=options.get("beta", 5.0))(priors, targets, predictions, assignment)
    parameters = [part.detach().double().requires_grad_() for part in (assigner.mean, assigner.sigma)]
    expected = auto_assigned(priors, targets, predictions, *parameters, **options)

    pairs = list(zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist()))
    assert pairs == sorted(expected.weight)
    for name in ("weight", "prior"):
        wanted = [float(getattr(expected, name)[pair].detach()) for pair in pairs]
        found = assignment.weight if name == "weight" else assignment.score
        assert found.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-30)
    wanted = [expected.negative[pair] for pair in pairs]
    assert assignment.neg_weight.tolist() == pytest.approx(wanted, abs=1e-4)

    leaves = [
        part for part in (predictions.logits, predictions.boxes, predictions.quality) if part is not None
    ]
    total, wanted_total = sum(terms.values()), sum(expected.terms.values())
    assert {name: float(term.detach()) for name, term in terms.items()} == pytest.approx(
        {name: float(term.detach()) for name, term in expected.terms.items()}, rel=1e-4
    )
    slopes = torch.autograd.grad(total, [*leaves, assigner.mean, assigner.sigma])
    wanted_slopes = torch.autograd.grad(
        wanted_total + 0 * sum(part.sum() for part in (*leaves, *parameters)), [*leaves, *parameters]
    )
    for slope, wanted_slope in zip(slopes, wanted_slopes, strict=True):
        torch.testing.assert_close(slope.double(), wanted_slope, rtol=1e-3, atol=1e-5)
