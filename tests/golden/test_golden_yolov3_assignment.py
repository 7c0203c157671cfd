"""Assignment, targets and ignore mask of YOLOv3 against the original: indices equal, values within 1e-5."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from yolov3_case import YOLOv3Case, parametrize_cases, yolov3_folder

from boxmatch.losses.yolov3 import box_scale, box_targets
from boxmatch.structures import Assignment, Pairs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case."""
    parametrize_cases(metafunc)


@pytest.fixture
def case(yolov3_file: Path) -> YOLOv3Case:
    """The file."""
    return YOLOv3Case.read(yolov3_file)


@pytest.fixture
def assignment(case: YOLOv3Case) -> Assignment:
    """What the package makes of the file."""
    return case.assigner(case.priors, case.targets, case.predictions(case.raw()))


def test_every_kind_of_file_is_there(kind: str, request: pytest.FixtureRequest) -> None:
    assert sorted(yolov3_folder(request.config).glob(kind)), f"no {kind} in the folder of golden files"


def test_boxes_are_counted_as_in_the_file(case: YOLOv3Case) -> None:
    assert case.targets.per_image().tolist() == case.array("n_gt").tolist()


def test_every_box_finds_the_anchor_of_the_original(case: YOLOv3Case, assignment: Assignment) -> None:
    assert assignment.candidates is not None
    assert assignment.candidates.gt.tolist() == list(range(len(case.targets)))
    cell = case.priors.cell(assignment.candidates.prior)
    anchor = case.array("mask").flip(0)[cell.level, cell.anchor]
    stored = case.array("best_anchor")
    assert anchor.tolist() == stored[stored >= 0].tolist()


def positives(case: YOLOv3Case, assignment: Assignment, layer: int) -> Tensor:
    """For each positive of a layer in file order, the position of its pair: there is exactly one."""
    place = assignment.image * len(case.priors) + assignment.pairs.prior
    owned = (assignment.weight > 0) & (case.layer_of(assignment.pairs.prior) == layer)
    wanted = case.flat_prior(layer, case.array(f"l{layer}_pos_idx"))
    assert place[owned].sort().values.tolist() == wanted.sort().values.tolist()
    return torch.stack([(owned & (place == entry)).nonzero()[0, 0] for entry in wanted])


def test_positives_lie_where_the_original_has_them_with_its_targets(
    case: YOLOv3Case, assignment: Assignment
) -> None:
    for layer in case.layers:
        rows = positives(case, assignment, layer)
        pairs = Pairs(assignment.pairs.gt[rows], assignment.pairs.prior[rows])
        stored = case.array(f"l{layer}_pos_target")
        assert_close(box_targets(case.priors, case.targets, pairs), stored[:, :4], rtol=1e-5, atol=1e-5)
        assert (stored[:, 4] == 1).all()
        classes = torch.zeros(len(rows), case.classes)
        for slot, (gt, prior) in enumerate(zip(pairs.gt, pairs.prior)):
            shared = assignment.pairs.prior == prior
            shared &= assignment.image == case.targets.image[gt]
            labels = case.targets.labels[assignment.pairs.gt[shared]]
            classes[slot, labels] = assignment.score[shared]
        assert torch.equal(classes, stored[:, 5:])
        scale = box_scale(case.priors, case.targets, pairs).sqrt()
        assert_close(scale, case.array(f"l{layer}_pos_scale"), rtol=1e-5, atol=1e-5)


def test_the_same_predictions_are_ignored(case: YOLOv3Case, assignment: Assignment) -> None:
    place = assignment.ignored.flatten().nonzero().squeeze(1)
    layer = case.layer_of(place % len(case.priors))
    for number in case.layers:
        stored = case.flat_prior(number, case.array(f"l{number}_ignore_idx"))
        assert place[layer == number].tolist() == stored.sort().values.tolist()


def test_boxes_decode_as_in_the_original(case: YOLOv3Case) -> None:
    predictions = case.predictions(case.raw())
    assert predictions.boxes is not None and predictions.quality is not None
    boxes = predictions.boxes.flatten(0, 1)
    scores = torch.cat((predictions.quality[..., None], predictions.logits), 2).flatten(0, 1).sigmoid()
    for layer in case.layers:
        side = case.side // case.array("strides")[layer].item()
        index = case.array(f"l{layer}_dec_idx")
        slots = [index // (3 * side * side), index // (side * side) % 3, index // side % side, index % side]
        place = case.flat_prior(layer, torch.stack(slots, 1))
        stored = case.array(f"l{layer}_dec")
        decoded = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)[place]
        # The corners of a box of 0.1 px at 300 px hold its sides to 1e-4 px.
        assert_close(decoded, stored, rtol=1e-5, atol=1e-4)
        score = case.array(f"l{layer}_dec_score")
        assert_close(scores[place[: len(score)]], score, rtol=1e-5, atol=1e-6)
