"""Optimal transport assignment on paper, and against the dense form in double precision."""

import ota_dense
import pytest
import torch
from decisions import Decisions
from drawn_problems import batches, grids, make_predictions, make_priors, make_targets
from dynamic_k_loops import with_classes
from every_assigner import one_level_priors, random_batch, two_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sim_ota import predicted

from boxmatch.assign import OTA
from boxmatch.assign.transport import Transport
from boxmatch.segments import segment_sum
from boxmatch.structures import Pairs, Predictions, Targets

POINTS = one_level_priors(1, 6, 8, [(8, 8)])  # centres x = 4, 12, 20, 28, 36, 44 at y = 4
WIDE = [0.0, 0.0, 48.0, 8.0]
HALF = [0.0, 0.0, 24.0, 8.0]


def learned(priors, targets: Targets, predictions: Predictions, **options) -> list[list[int]]:
    """Owner of each prior."""
    return OTA(**options)(priors, targets, predictions).gt_index().tolist()


def test_a_box_gives_as_many_labels_as_its_overlaps_add_up_to():
    targets = Targets.from_lists([[WIDE]], [[0]])
    # Within 2.5 strides of x = 24 and in the box: all but x = 4 and 44, on the border of the square.
    perfect = predicted([WIDE] * 6, [[0.5]] * 6)
    assert learned(POINTS, targets, perfect) == [[-1, 0, 0, 0, 0, -1]]
    assert learned(POINTS, targets, perfect, center_radius=1.5) == [[-1, -1, 0, 0, -1, -1]]


def test_shares_are_relative_so_that_equal_priors_learn_alike_whatever_there_is_to_give():
    targets = Targets.from_lists([[WIDE]], [[0]])
    half = predicted([HALF] * 6, [[0.5]] * 6)
    for topk in (1, 20):  # one label, and two
        assert learned(POINTS, targets, half, topk=topk) == [[-1, 0, 0, 0, 0, -1]]


def test_labels_go_where_they_cost_least_beside_background():
    targets = Targets.from_lists([[WIDE]], [[0]])
    # 1 + 3 · 0.1: one label, to the prior that is sure of the class and of the place.
    poor = [0.0, 0.0, 4.8, 8.0]
    predictions = predicted(
        [WIDE, poor, WIDE, poor, poor, WIDE], [[0.01], [0.01], [0.9], [0.01], [0.01], [0.9]]
    )
    assert learned(POINTS, targets, predictions) == [[-1, -1, 0, -1, -1, -1]]


def test_two_boxes_share_by_cost_and_equal_ones_go_to_the_lowest_row():
    left, right = [0.0, 0.0, 24.0, 8.0], [0.0, 0.0, 24.0, 8.0]
    predictions = predicted([left] * 6, [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], *[[0.1, 0.1]] * 3])
    owner = learned(POINTS, Targets.from_lists([[left, right]], [[0, 1]]), predictions)[0]
    assert owner[1:3] == [0, 1]
    twice = learned(POINTS, Targets.from_lists([[left, right]], [[0, 0]]), predictions)[0]
    assert 1 not in twice
    assert twice.count(0) == 3


def test_more_labels_than_priors_and_boxes_without_candidates_are_no_fault():
    points = one_level_priors(1, 2, 8, [(8, 8)])
    box, between = [0.0, 0.0, 16.0, 8.0], [4.5, 0.0, 11.5, 8.0]
    targets = Targets.from_lists([[box, between, box, box]], [[0, 0, 0, 0]])
    assignment = OTA()(points, targets, predicted([box] * 2, [[0.5]] * 2))
    assert assignment.gt_index().tolist() == [[0, 0]]
    assert assignment.stats().starved.tolist() == [1, 2, 3]


def test_a_point_on_the_rim_of_a_box_is_no_candidate():
    predictions = predicted([WIDE] * 6, [[0.5]] * 6)
    for left, expected in ((11.995, 0), (11.98, 1)):
        box = [left, 0.0, 19.0, 8.0]
        assignment = OTA()(POINTS, Targets.from_lists([[box]], [[0]]), predictions, explain=True)
        assert assignment.explanation is not None
        assert len(assignment.explanation) == expected


def test_saturated_logits_are_no_fault():
    logits = torch.tensor([[[300.0], [-300.0], [300.0], [-300.0], [0.0], [0.0]]])
    predictions = Predictions(logits, torch.zeros(1, 6, 4), torch.tensor([[WIDE, HALF] * 3]))
    assignment = OTA()(POINTS, Targets.from_lists([[WIDE]], [[0]]), predictions, explain=True)
    assert assignment.explanation is not None
    assert assignment.explanation.score.isfinite().all()
    assert 2 in assignment.pairs.prior.tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"center_radius": 0.0},
        {"epsilon": 0.0},
        {"iou_weight": -1.0},
        {"topk": 0},
        {"iterations": 0},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        OTA(**arguments)


def test_predictions_without_boxes_are_refused():
    predictions = Predictions(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        OTA()(POINTS, Targets.from_lists([[WIDE]], [[3]]), predictions)


OPTIONS = st.fixed_dictionaries(
    {
        "center_radius": st.sampled_from([0.7, 2.5]),
        "topk": st.sampled_from([1, 3, 20]),
        "iou_weight": st.sampled_from([0.0, 1.5]),
        "epsilon": st.sampled_from([0.1, 0.5]),
        "iterations": st.sampled_from([1, 7, 50]),
    }
)


def dense_owners(priors, targets: Targets, predictions: Predictions, options: dict, decisions: Decisions):
    """Owner of each prior that learns a box, by image and prior."""
    wanted = {}
    for image in range(targets.batch_size):
        given_problem = ota_dense.problem(
            priors,
            targets,
            predictions,
            image,
            decisions,
            radius=options["center_radius"],
            topk=options["topk"],
            iou_weight=options["iou_weight"],
        )
        log_plan = ota_dense.plan(given_problem, options["epsilon"], options["iterations"])
        for prior, gt in ota_dense.owners(given_problem, log_plan, decisions).items():
            wanted[image, prior] = gt
    return wanted


@given(grids(), batches(), OPTIONS, st.integers(0, 10**6), st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_it_equals_the_dense_form(grid, images, options, seed, classes):
    priors, targets = make_priors(grid), make_targets(images, classes)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, classes, quality=False)
    # Shares are compared after costs, in float32 up to the IoU, were divided by epsilon and multiplied up.
    decisions = Decisions(absolute=1e-4, relative=1e-4)
    wanted = dense_owners(priors, targets, predictions, options, decisions)
    assignment = OTA(**options)(priors, targets, predictions)
    owner = {
        (image, prior): gt
        for image, prior, gt in zip(
            assignment.image.tolist(), assignment.pairs.prior.tolist(), assignment.pairs.gt.tolist()
        )
    }
    if not decisions.doubtful:
        assert owner == wanted


@pytest.mark.parametrize("seed", range(4))
def test_the_plan_is_that_of_the_dense_form_and_keeps_its_sums(seed):
    priors, targets = two_level_priors(), random_batch(seed=seed)
    predictions = with_classes(make_predictions(priors, targets, seed), seed, 5, quality=False)
    decisions = Decisions()
    for image in range(targets.batch_size):
        dense = ota_dense.problem(priors, targets, predictions, image, decisions)
        if not dense.rows:
            continue
        log_plan = ota_dense.plan(dense)
        gt, prior = dense.allowed[:-1].nonzero().unbind(1)
        gain = ((dense.cost[-1] - dense.cost[:-1]) / 0.1)[gt, prior]
        boxes = torch.zeros(len(dense.rows), 4) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        problem = Transport.of(
            Pairs(gt, prior), gain, Targets.from_lists([boxes], [[0] * len(boxes)]), len(priors)
        )
        supply = dense.supply[:-1].long()
        found = problem.plan(supply, 50)
        torch.testing.assert_close(found.mass, log_plan[gt, prior], rtol=0, atol=1e-9)
        torch.testing.assert_close(found.background, log_plan[-1, prior.unique()], rtol=0, atol=1e-9)
        idle = ~dense.allowed[:-1].any(0)
        torch.testing.assert_close(found.idle.expand(int(idle.sum())), log_plan[-1, idle], rtol=0, atol=1e-9)
        per_box = segment_sum(found.mass.exp(), gt, len(boxes))
        torch.testing.assert_close(per_box, supply.double(), rtol=1e-6, atol=1e-6)
        per_prior = segment_sum(found.mass.exp(), problem.column, len(found.background))
        torch.testing.assert_close(
            per_prior + found.background.exp(), torch.ones_like(per_prior), rtol=0, atol=0.05
        )


@pytest.mark.parametrize("seed", range(6))
def test_hopeless_costs_and_too_many_labels_end_in_the_plan_of_the_dense_form(seed):
    random = torch.Generator().manual_seed(seed)
    boxes, count = 5, 12
    allowed = torch.rand((boxes, count), generator=random) < 0.4
    allowed[:, 0] = True
    # Divided by epsilon up to some thousands, beyond what an exponential can hold.
    cost = 200 * torch.randn((boxes, count), generator=random, dtype=torch.float64)
    supply = torch.randint(1, 4 if seed % 2 else 9, (boxes,), generator=random)
    rest = max(count - int(supply.sum()), 1e-8)
    dense = ota_dense.Problem(
        list(range(boxes)),
        torch.cat((allowed, torch.ones(1, count, dtype=torch.bool))),
        torch.cat((cost + ota_dense.FORBIDDEN * ~allowed, torch.zeros(1, count, dtype=torch.float64))),
        torch.cat((supply.double(), torch.tensor([rest], dtype=torch.float64))),
    )
    log_plan = ota_dense.plan(dense)
    gt, prior = allowed.nonzero().unbind(1)
    targets = Targets.from_lists([[[0.0, 0.0, 1.0, 1.0]] * boxes], [[0] * boxes])
    found = Transport.of(Pairs(gt, prior), -10 * cost[gt, prior], targets, count).plan(supply, 50)
    torch.testing.assert_close(found.mass, log_plan[gt, prior], rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(found.background, log_plan[-1, prior.unique()], rtol=1e-9, atol=1e-6)
