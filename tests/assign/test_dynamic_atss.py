"""Dynamic ATSS on paper, and against obvious loops."""

import pytest
import torch
from atss_loops import batches, check, grids, make_priors, make_targets
from every_assigner import one_level_priors
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from boxmatch.assign import ATSS, DynamicATSS
from boxmatch.priors import Priors
from boxmatch.structures import Predictions, Targets

ROW = one_level_priors(1, 4, 8, [(8, 8)])  # centres x = 4, 12, 20, 28 at y = 4
FAR = [100.0, 100.0, 110.0, 110.0]


def one_image(*boxes: list[float]) -> Targets:
    return Targets.from_lists([list(boxes)], [[0] * len(boxes)])


def predicted(boxes: list[list[float]], images: int = 1) -> Predictions:
    """The same boxes for every image."""
    table = torch.tensor(boxes).expand(images, -1, -1)
    return Predictions(logits=torch.zeros(*table.shape[:2], 1), deltas=torch.zeros_like(table), boxes=table)


def test_the_prior_that_predicts_the_box_better_learns_it():
    box = [8.0, 0.0, 24.0, 8.0]  # half covered by each of the two priors in its middle
    assignment = DynamicATSS()(ROW, one_image(box), predicted([FAR, FAR, box, FAR]), explain=True)
    told = assignment.explanation
    assert told.score.tolist() == [0.0, 0.5, 1.5, 0.0]
    # Means 1/4 and 1/4, deviations 0.2887 and 1/2.
    assert told.threshold.tolist() == pytest.approx([1.2887] * 4, abs=1e-4)
    assert assignment.gt_index().tolist() == [[-1, -1, 0, -1]]


def test_the_deviation_of_the_sum_asks_for_less_than_the_sum_of_the_deviations():
    box, tenth = [8.0, 0.0, 24.0, 8.0], [8.0, 0.0, 9.6, 8.0]
    predictions = predicted([FAR, FAR, tenth, FAR])
    # Scores 0, 0.5, 0.6, 0: the threshold is 0.614 by the one, 0.595 by the other.
    assert len(DynamicATSS()(ROW, one_image(box), predictions).pairs) == 0
    lenient = DynamicATSS(threshold="std_of_sum")(ROW, one_image(box), predictions)
    assert lenient.gt_index().tolist() == [[-1, -1, 0, -1]]


def test_a_contested_prior_goes_to_the_greater_sum_and_of_equal_boxes_to_the_first():
    row = one_level_priors(1, 8, 8, [(8, 8)])
    wide, narrow = [0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 10.0, 8.0]
    # The prior itself is nearer to the narrow box; its prediction is the wide one.
    predictions = predicted([wide, wide, *[FAR] * 6])
    assert ATSS()(row, one_image(narrow, wide, wide)).gt_index()[0, 0] == 0
    assert DynamicATSS()(row, one_image(narrow, wide, wide), predictions).gt_index()[0, 0] == 1


def test_the_centre_lies_farther_inside_the_box_than_the_margin():
    box = [8.0, 0.0, 24.0, 8.0]
    predictions = predicted([FAR, FAR, box, FAR])
    assignment = DynamicATSS(inside_margin=4.0)(ROW, one_image(box), predictions, explain=True)
    assert len(assignment.pairs) == 0
    assert assignment.explanation.counts()["outside"] == 1


def test_each_image_has_predictions_of_its_own():
    box = [8.0, 0.0, 24.0, 8.0]
    boxes = torch.tensor([[FAR, box, FAR, FAR], [FAR, FAR, box, FAR]])
    predictions = Predictions(logits=torch.zeros(2, 4, 1), deltas=torch.zeros(2, 4, 4), boxes=boxes)
    targets = Targets.from_lists([[box], [box]], [[0], [0]])
    assert DynamicATSS()(ROW, targets, predictions).gt_index().tolist() == [[-1, 0, -1, -1], [-1, -1, 1, -1]]


def test_predictions_are_needed_and_decoded():
    with pytest.raises(ValueError, match="reads predictions"):
        DynamicATSS()(ROW, one_image(FAR))
    raw = Predictions(logits=torch.zeros(1, 4, 1), deltas=torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="decoded boxes"):
        DynamicATSS()(ROW, one_image(FAR), raw)


@pytest.mark.parametrize("arguments", [{"topk": 0}, {"inside_margin": -0.5}, {"threshold": "sum"}])
def test_arguments_out_of_range_are_refused(arguments):
    # The shape checker of the tests knows the names too.
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(arguments))):
        DynamicATSS(**arguments)


def moved(priors: Priors, seed: int) -> list[list[float]]:
    """Every prior with each corner moved by up to 8 px, some of them inside out."""
    generator = torch.Generator().manual_seed(seed)
    return (priors.boxes + torch.randint(-32, 33, priors.boxes.shape, generator=generator) / 4).tolist()


@pytest.mark.parametrize("threshold", ["sum_of_stds", "std_of_sum"])
@given(
    grid=grids(),
    images=batches(),
    topk=st.sampled_from([1, 2, 4, 9, 30]),
    margin=st.sampled_from([0.0, 0.5, 3.0]),
    on_grid=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_it_equals_obvious_loops(threshold, grid, images, topk, margin, on_grid, seed):
    priors, targets = make_priors(grid, on_grid), make_targets(images)
    boxes = moved(priors, seed)
    assigner = DynamicATSS(topk=topk, threshold=threshold, inside_margin=margin)
    assignment = assigner(priors, targets, predicted(boxes, targets.batch_size), explain=True)
    check(assignment, priors, targets, boxes, threshold, topk, margin)
