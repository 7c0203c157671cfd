"""The benchmark of assignment: it compares what it measures, and notices a wrong result."""

import dataclasses
import json

import pytest
import torch

from boxmatch.bench.assign import ASSIGNERS, bench_assign, peak_mebibytes, random_targets
from boxmatch.bench.dense import METHODS, count_errors, dense_gt_index
from boxmatch.priors import AnchorGrid, Priors

THRESHOLD = 0.0625


@pytest.fixture(scope="module")
def priors() -> Priors:
    """Two levels on 96 × 96 px."""
    return AnchorGrid([[(10, 13), (33, 23)], [(62, 45), (59, 119)]], (8, 16))([(12, 12), (6, 6)])


def test_rows_hold_every_method_and_number_of_boxes_and_go_into_json():
    rows = bench_assign(boxes_per_image=(1, 3), batch_size=2, size=64, repeats=1)
    assert [(row.method, row.boxes_per_image) for row in rows] == [(m, n) for n in (1, 3) for m in METHODS]
    for row in rows:
        assert json.loads(json.dumps(dataclasses.asdict(row))) == dataclasses.asdict(row)
        assert min(row.milliseconds, row.cpu_milliseconds, row.peak_mebibytes) > 0
        assert min(row.dense_milliseconds, row.dense_cpu_milliseconds, row.dense_peak_mebibytes) > 0


@pytest.mark.parametrize("method", METHODS)
def test_pairs_and_dense_form_agree(method, priors):
    for seed in range(5):
        targets = random_targets(3, 20, 96, seed)
        ours = ASSIGNERS[method]()(priors, targets).gt_index()
        assert count_errors(method, priors, targets, THRESHOLD, ours) == 0
        assert (ours != dense_gt_index(method, priors, targets, THRESHOLD)).sum() <= 1  # rounding


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_owner_a_missing_and_an_invented_one_are_counted(method, priors):
    targets = random_targets(2, 20, 96, seed=1)
    right = dense_gt_index(method, priors, targets, THRESHOLD)
    positive, background = (right[1] >= 0).nonzero()[0], (right[1] < 0).nonzero()[0]
    for place, value in ((positive, -1), (background, 20), (positive, int(targets.image.argmax()) + 19)):
        wrong = right.clone()
        if int(wrong[1, place]) == value:
            value -= 1
        wrong[1, place] = value
        assert count_errors(method, priors, targets, THRESHOLD, wrong) == 1


def test_the_benchmark_stops_when_the_results_differ(monkeypatch):
    class Forgetful(ASSIGNERS["nearby_grid"]):
        def assign(self, priors, targets, predictions, story):
            later = targets.select(slice(1, None))
            return super().assign(priors, later, predictions, story)

    monkeypatch.setitem(ASSIGNERS, "nearby_grid", Forgetful)
    with pytest.raises(RuntimeError, match="nearby_grid: the dense form gives another owner"):
        bench_assign(methods=("nearby_grid",), boxes_per_image=(3,), batch_size=2, size=64, repeats=1)


def test_peak_memory_counts_what_is_held_at_once():
    def hold_two_of_three() -> None:
        first = torch.zeros(2**18)  # 1 MiB
        second = first + 1
        del first
        second + 1

    assert peak_mebibytes(hold_two_of_three, torch.device("cpu")) == pytest.approx(2, abs=0.01)
