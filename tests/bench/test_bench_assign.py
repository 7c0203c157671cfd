"""The benchmark of assignment: its inputs, the dense forms it compares with, and what it measures."""

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from boxmatch.assign import Assigner
from boxmatch.bench import assign
from boxmatch.bench.assign import bench_assign
from boxmatch.bench.assigners import ASSIGNERS
from boxmatch.bench.dense_picture import Matched, disagreement, match_all
from boxmatch.bench.measure import peak_mebibytes
from boxmatch.bench.memory_curve import draw_memory_curve, memory_curve
from boxmatch.bench.standard_inputs import KINDS, Inputs, Kind, standard_inputs

DENSE = [name for name, entry in ASSIGNERS.items() if entry.dense is not None]


def small(kind: str) -> Kind:
    """The same priors on a picture of a fifth of the sides."""
    full = KINDS[kind]
    return replace(full, height=full.height // 5, width=full.width // 5, queries=min(full.queries, 40))


def inputs_of(name: str, batch_size: int, boxes: int, seed: int = 0) -> Inputs:
    """Small inputs of an assigner."""
    entry = ASSIGNERS[name]
    made = standard_inputs(small(entry.kinds[0]), batch_size, boxes, seed=seed)
    return made if entry.quality else made.without_quality()


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("boxes", [1, 12])
def test_the_dense_form_gives_the_same_pairs_and_weights(name: str, boxes: int):
    entry, assigner = ASSIGNERS[name], ASSIGNERS[name].make()
    for seed in range(3):
        inputs = inputs_of(name, 2, boxes, seed)
        assignment = assigner(inputs.priors, inputs.targets, inputs.predictions)
        assert len(assignment.pairs) > 0
        assert disagreement(assignment, match_all(entry.dense, assigner, inputs)) == 0


def test_every_public_assigner_is_timed_and_those_without_a_dense_form_say_why():
    from boxmatch import assign as ours

    public = {getattr(ours, name) for name in ours.__all__}
    public = {found for found in public if isinstance(found, type) and issubclass(found, Assigner)}
    assert {type(entry.make()) for entry in ASSIGNERS.values()} == public - {Assigner}
    assert all(entry.dense is not None or entry.note for entry in ASSIGNERS.values())


@pytest.mark.parametrize("change", ["missing", "other prior", "other weight", "ignored"])
def test_a_difference_between_the_forms_is_counted(change: str):
    inputs = inputs_of("yolov3", 2, 12)
    entry, assigner = ASSIGNERS["yolov3"], ASSIGNERS["yolov3"].make()
    assignment = assigner(inputs.priors, inputs.targets, inputs.predictions)
    first, second = match_all(entry.dense, assigner, inputs)
    assert second.weight is not None and second.ignored is not None
    free = int((~torch.isin(torch.arange(len(inputs.priors)), second.prior)).nonzero()[0])
    wrong = {
        "missing": Matched(second.gt[1:], second.prior[1:], second.weight[1:], second.ignored),
        "other prior": second._replace(prior=second.prior.index_fill(0, torch.tensor(3), free)),
        "other weight": second._replace(weight=second.weight + 0.1),
        "ignored": second._replace(ignored=~second.ignored),
    }[change]
    assert disagreement(assignment, [first, second]) == 0
    assert disagreement(assignment, [first, wrong]) > 0


def test_the_benchmark_stops_when_the_forms_differ(monkeypatch):
    entry = ASSIGNERS["nearby_grid"]

    def half(assigner, picture):
        matched = entry.dense(assigner, picture)
        return Matched(matched.gt[::2], matched.prior[::2])

    monkeypatch.setitem(assign.ASSIGNERS, "nearby_grid", replace(entry, dense=half))
    monkeypatch.setitem(assign.KINDS, "yolo416", small("yolo416"))
    with pytest.raises(RuntimeError, match=r"nearby_grid: expected the dense form to agree .* for \d\d"):
        list(bench_assign(("nearby_grid",), boxes=(3,), repeats=1))


def test_rows_hold_what_was_asked_for_and_go_into_json(monkeypatch):
    for kind in KINDS:
        monkeypatch.setitem(assign.KINDS, kind, small(kind))
    names = ("nearby_grid", "fcos_region", "max_iou", "hungarian")
    rows = list(bench_assign(names, (1, 3), (2, 5), repeats=1, dense_boxes=2))
    asked = {(name, kind) for name in names for kind in ASSIGNERS[name].kinds}
    assert {(row.assigner, row.inputs, row.batch_size, row.boxes_per_image) for row in rows} == {
        (*one, batch, boxes) for one in asked for batch in (1, 3) for boxes in (2, 5)
    }
    for row in rows:
        assert json.loads(json.dumps(dataclasses.asdict(row))) == dataclasses.asdict(row)
        assert min(row.milliseconds, row.cpu_milliseconds, row.peak_mebibytes) > 0
        small_enough = row.boxes_per_image == 2
        assert (row.dense_ratio is not None) == (small_enough and row.assigner != "hungarian")
        assert (row.peer_ratio is not None) == (small_enough and row.assigner in ("fcos_region", "max_iou"))
    one = next(row for row in rows if row.peer_ratio is not None)
    ratio = one.peer_cpu_milliseconds / one.cpu_milliseconds
    assert one.peer_ratio == pytest.approx(ratio)


@pytest.mark.parametrize("name", ["max_iou", "fcos_region"])
def test_torchvision_is_run_on_the_same_boxes(name: str):
    inputs = inputs_of(name, 2, 8)
    entry = ASSIGNERS[name]
    matched = entry.peer.prepare(inputs)()
    assignment = entry.make()(inputs.priors, inputs.targets)
    theirs = sum(int((owner >= 0).sum()) for owner in matched)
    # Its FCOS takes a square without the test for inside, its low-quality matches keep their best box.
    assert theirs == pytest.approx(len(assignment.pairs), rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_depend_on_the_batch_and_priors_are_as_many_as_the_name_says(kind: str):
    one, three = (standard_inputs(small(kind), count, 6, seed=4) for count in (1, 3))
    assert torch.equal(three.targets.boxes[:6], one.targets.boxes)
    for part in ("logits", "deltas", "boxes", "quality"):
        mine, theirs = (getattr(inputs.predictions, part) for inputs in (one, three.first_picture()))
        assert torch.equal(mine, theirs)
        assert bool(mine.isfinite().all())
    three.targets.check(80)
    counts = {
        "atss22k": 22_400,
        "retina201k": 201_600,
        "yolo8400": 8_400,
        "yolo25200": 25_200,
        "yolo416": 10_647,
        "yolof": 5_250,
        "queries300": 300,
    }
    assert len(KINDS[kind].priors()) == counts[kind]


def test_boxes_are_like_those_of_coco_and_predictions_like_those_of_a_half_trained_network():
    inputs = standard_inputs(KINDS["yolo8400"], 2, 400)
    boxes = inputs.targets.boxes
    assert bool((boxes >= -1e-3).all()) and bool((boxes <= 640.001).all())
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    assert float(side.median()) == pytest.approx(52 * 640 / (480 * 640) ** 0.5, rel=0.1)
    assert float(side.log().std()) == pytest.approx(0.9, abs=0.15)  # 1 before it is cut at both ends
    logits, quality = inputs.predictions.logits, inputs.predictions.quality
    assert float(logits.median()) == pytest.approx(-4.5, abs=0.1)
    top = logits.amax(2)
    assert float(top[quality > 0].mean()) > float(top[quality < -3].mean()) + 0.5


def test_the_smallest_box_around_a_prior_is_what_it_sees():
    inputs = standard_inputs(small("yolo8400"), 1, 30)
    from boxmatch.bench.standard_inputs import _smallest_box

    owner = _smallest_box(inputs.priors, inputs.targets)[0]
    boxes = inputs.targets.boxes
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for prior, (x, y) in enumerate(inputs.priors.centers.tolist()):
        around = [row for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()) if x1 < x < x2 and y1 < y < y2]
        assert int(owner[prior]) == (min(around, key=lambda row: float(sizes[row])) if around else -1)


def test_the_memory_curve_is_measured_and_drawn(monkeypatch):
    monkeypatch.setitem(assign.KINDS, "atss22k", small("atss22k"))
    points = list(memory_curve(("atss", "fcos_region"), batch_size=2, boxes=(1, 20, 40), repeats=1))
    assert [point.boxes_per_image for point in points] == [1, 1, 20, 20, 40, 40]
    atss = [point.peak_mebibytes for point in points if point.assigner == "atss"]
    assert atss[0] < atss[1] < atss[2]
    figure = draw_memory_curve(points)
    titles = [axis.get_title() for axis in figure.axes]
    assert [title.split(",")[0] for title in titles] == ["atss", "fcos_region"]
    assert figure.axes[0].lines[1].get_ydata()[-1] == 1


def test_peak_memory_counts_what_is_held_at_once():
    def hold_two_of_three() -> None:
        first = torch.zeros(2**18)  # 1 MiB
        second = first + 1
        del first
        second + 1

    assert peak_mebibytes(hold_two_of_three, torch.device("cpu")) == pytest.approx(2, abs=0.01)
