"""The call that all assigners share: its checks, precision, predictions and ignore regions."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from every_assigner import one_level_priors, random_batch, two_level_priors

from boxmatch.assign import AllGrid, Assigner, NearbyGrid, SingleGrid
from boxmatch.assign.story import Story
from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

PRIORS = two_level_priors()


class Recorder(Assigner):
    """Assigns nothing and keeps what it was given."""

    uses_predictions: ClassVar[bool] = True

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        self.seen = (targets, predictions, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
        empty = torch.zeros(0, dtype=torch.int64)
        return Assignment.hard(Pairs(empty, empty), targets, len(priors.boxes))


def predict(images: int, priors: int, dtype: torch.dtype = torch.float32) -> Predictions:
    """Zeros with a graph."""
    return Predictions(
        logits=torch.zeros(images, priors, 3, dtype=dtype, requires_grad=True),
        deltas=torch.zeros(images, priors, 4, dtype=dtype, requires_grad=True),
    )


def test_assign_runs_in_float32_without_graph_or_autocast():
    recorder = Recorder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        recorder(PRIORS, random_batch(), predict(4, len(PRIORS.boxes), torch.bfloat16))
    _, predictions, graph, autocast = recorder.seen
    assert predictions.logits.dtype == predictions.deltas.dtype == torch.float32
    assert not predictions.logits.requires_grad
    assert not graph
    assert not autocast


def test_missing_predictions_are_refused():
    with pytest.raises(ValueError, match="Recorder reads predictions, got None"):
        Recorder()(PRIORS, random_batch())


@pytest.mark.parametrize(("images", "priors"), [(3, 0), (4, -1), (5, 1)])
def test_predictions_of_another_shape_are_refused(images, priors):
    for assigner in (Recorder(), NearbyGrid()):
        with pytest.raises(ValueError, match=r"expected predictions for 4 images and 360 priors"):
            assigner(PRIORS, random_batch(), predict(images, len(PRIORS.boxes) + priors))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_named(value):
    predictions = predict(4, len(PRIORS.boxes)).detach()
    predictions.deltas[2, 17, 3] = value
    with pytest.raises(ValueError, match=r"deltas of image 2, prior 17"):
        Recorder()(PRIORS, random_batch(), predictions)


def test_methods_that_read_no_predictions_do_not_look_at_them():
    predictions = predict(4, len(PRIORS.boxes)).detach()
    predictions.deltas[:] = float("nan")
    without = NearbyGrid()(PRIORS, random_batch())
    assert torch.equal(NearbyGrid()(PRIORS, random_batch(), predictions).gt_index(), without.gt_index())


def test_ignore_regions_are_withheld_from_the_method():
    targets = Targets.from_lists(
        [[[0, 0, 8, 8], [0, 0, 64, 64]], [[8, 8, 16, 16]]], [[1, 0], [2]], [[False, True], [False]]
    )
    recorder = Recorder()
    assignment = recorder(PRIORS, targets, predict(2, len(PRIORS.boxes)))
    assert recorder.seen[0].labels.tolist() == [1, 2]
    assert assignment.targets is targets
    assert assignment.ignored[0].any()
    assert not assignment.ignored[1].any()


def test_half_of_a_prior_inside_a_region_is_enough_and_less_is_not():
    priors = one_level_priors(2, 4, 8, [(8, 8)])
    region = [
        4.0,
        0.0,
        19.9,
        8.0,
    ]  # covers half of column 0, all of column 1, a little less than half of column 2
    targets = Targets.from_lists([[region]], [[0]], [[True]])
    assert SingleGrid()(priors, targets).gt_index().tolist() == [[-2, -2, -1, -1, -1, -1, -1, -1]]
    assert SingleGrid(ignore_threshold=0.9)(priors, targets).gt_index()[0, :3].tolist() == [-1, -2, -1]


def test_a_positive_inside_an_ignore_region_stays_positive():
    priors = one_level_priors(1, 2, 8, [(8, 8)])
    targets = Targets.from_lists([[[0, 0, 16, 8], [0, 0, 8, 8]]], [[0, 1]], [[True, False]])
    assert SingleGrid()(priors, targets).gt_index().tolist() == [[1, -2]]


@pytest.mark.parametrize("wrong", [0.0, 0.49, 1.1])
def test_an_ignore_threshold_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"ignore_threshold in \[0.5, 1\]"):
        NearbyGrid(ignore_threshold=wrong)


def test_two_devices_are_refused():
    with pytest.raises(ValueError, match="on one device, got meta and cpu"):
        NearbyGrid()(replace(PRIORS, boxes=torch.empty(len(PRIORS), 4, device="meta")), random_batch())


@pytest.mark.parametrize("method", [SingleGrid, NearbyGrid, AllGrid])
def test_grid_methods_refuse_priors_without_a_grid(method):
    with pytest.raises(ValueError, match="priors on a grid, got free boxes"):
        method()(Priors.from_boxes(torch.rand(3, 4)), random_batch())


def test_a_printed_assigner_shows_its_options():
    assert repr(NearbyGrid(match_iou_thres=0.1, seed=4)) == (
        "NearbyGrid(match_iou_thres=0.1, filter_by_max_iou=True, seed=4, ignore_threshold=0.5)"
    )
