"""Assignment of ATSS and Dynamic ATSS against the original: labels and indices equal, values within 1e-5."""

from pathlib import Path

import pytest
import torch
from dense_case import DenseCase, inclusive, parametrize_cases
from torch import Tensor
from torch.testing import assert_close

from boxmatch.assign import ATSS, INCLUSIVE_INSIDE_MARGIN, Assigner, DynamicATSS
from boxmatch.boxes import cxcywh_to_xyxy, pair_iou
from boxmatch.losses.centerness import centerness
from boxmatch.structures import REASONS, Assignment, Explanation

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""What the README of the golden files suggests for targets."""

ASSIGNERS: dict[str, type[ATSS] | type[DynamicATSS]] = {"atss": ATSS, "dynamic_atss": DynamicATSS}

HEADS = tuple(
    f"{head}_l{level}" for head in ("cls_logits", "box_reg", "quality_logits") for level in range(5)
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per file of both systems."""
    parametrize_cases(metafunc, "atss", "dynamic_atss")


@pytest.fixture
def case(dense_file: Path) -> DenseCase:
    """The file."""
    return DenseCase.read(dense_file)


@pytest.fixture
def assigner(case: DenseCase) -> Assigner:
    """The rule of the file's system as its authors published it."""
    return ASSIGNERS[case.system](inside_margin=INCLUSIVE_INSIDE_MARGIN)


@pytest.fixture
def assignment(case: DenseCase, assigner: Assigner) -> Assignment:
    """What the package makes of the file."""
    return assigner(case.priors, case.targets, case.predictions(), explain=True)


@pytest.fixture
def explanation(assignment: Assignment) -> Explanation:
    """Every candidate with its score, threshold and fate."""
    assert assignment.explanation is not None
    return assignment.explanation


def positive_order(case: DenseCase, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Row in the targets and prior of our positives, ordered by image, then prior, as in `pos_inds`."""
    order = (assignment.image * len(case.priors) + assignment.pairs.prior).argsort()
    return assignment.pairs.gt[order], assignment.pairs.prior[order]


def expected_arrays(case: DenseCase) -> dict[str, tuple[int, ...]]:
    """Shape of every array about inputs and assignment that the README names."""
    images, boxes, priors = len(case.array("gt_count")), len(case.array("gt_boxes")), len(case.priors)
    with_boxes, positives = int((case.array("gt_count") > 0).sum()), len(case.array("pos_inds"))
    candidates = int(case.array("cand_count").prod(1).sum())
    shapes: dict[str, tuple[int, ...]] = {
        "image_sizes": (images, 2),
        "padded_size": (2,),
        "feature_sizes": (5, 2),
        "gt_boxes": (boxes, 4),
        "gt_labels": (boxes,),
        "gt_count": (images,),
        "cell_anchors": (5, 4),
        "anchors_checksum": (3,),
        "labels": (images, priors),
        "pos_inds": (positives,),
        "reg_targets_pos": (positives, 4),
        "quality_targets_pos": (positives,),
        "num_pos_avg_per_gpu": (),
        "sum_quality_targets": (),
        "matched_gt": (images, priors),
        "cand_count": (with_boxes, 2),
        **dict.fromkeys(("cand_idx", "cand_iou", "cand_is_pos"), (candidates,)),
        **dict.fromkeys(("thr_mean", "thr_std", "thr"), (boxes,)),
    }
    if case.system == "dynamic_atss":
        shapes |= {"cand_pred_iou": (candidates,), "cand_anchor_iou": (candidates,)}
        shapes |= {"iou_scores_pos": (positives,)}
    for head, channels in (("cls_logits", case.classes), ("box_reg", 4), ("quality_logits", 1)):
        for level, (height, width) in enumerate(case.array("feature_sizes").tolist()):
            shapes[f"{head}_l{level}"] = (images, channels, height, width)
    return shapes


def test_a_file_holds_every_documented_array(case: DenseCase) -> None:
    expected = expected_arrays(case)
    assert {name: tuple(case.array(name).shape) for name in expected} == expected


def test_the_priors_are_the_anchors(case: DenseCase) -> None:
    boxes = inclusive(case.priors.boxes).double()
    checksum = torch.stack((boxes.sum(), boxes.abs().sum(), boxes.new_tensor(len(boxes))))
    assert torch.equal(checksum, case.array("anchors_checksum"))
    starts = torch.tensor([0, *[len(level) for level in case.priors.levels][:-1]]).cumsum(0)
    assert torch.equal(inclusive(case.priors.boxes[starts]), case.array("cell_anchors"))
    if "anchors" in case.arrays:
        assert torch.equal(inclusive(case.priors.boxes), case.array("anchors"))


def test_every_prior_learns_the_box_and_class_of_the_original(
    case: DenseCase, assignment: Assignment
) -> None:
    index = assignment.gt_index()
    assert torch.equal(index, case.gt_index("matched_gt"))
    label = torch.where(index < 0, -1, case.targets.labels[index.clamp(min=0)])
    assert torch.equal(label, case.class_index("labels"))


def test_the_positives_and_their_number_are_those_of_the_original(
    case: DenseCase, assignment: Assignment
) -> None:
    gt, prior = positive_order(case, assignment)
    assert torch.equal(case.targets.image[gt] * len(case.priors) + prior, case.array("pos_inds"))
    assert max(len(gt), 1) == float(case.array("num_pos_avg_per_gpu"))


def test_the_candidates_are_those_of_the_original(case: DenseCase, explanation: Explanation) -> None:
    assert torch.equal(explanation.pairs.gt, case.candidates("cand_gt"))
    assert torch.equal(explanation.pairs.prior, case.candidates("cand_idx").long())
    per_image = [(int(count), case.priors.count_nearest(9)) for count in case.array("gt_count") if count]
    assert [tuple(row) for row in case.array("cand_count").tolist()] == per_image


def test_the_scores_of_the_candidates_are_those_of_the_original(
    case: DenseCase, explanation: Explanation
) -> None:
    assert_close(explanation.score, case.candidates("cand_iou"), **TOLERANCE)
    if case.system == "dynamic_atss":
        gts, prior = case.targets.boxes[explanation.pairs.gt], explanation.pairs.prior
        anchor_iou = pair_iou(case.priors.boxes[prior], gts)
        assert_close(anchor_iou, case.candidates("cand_anchor_iou"), **TOLERANCE)
        assert_close(explanation.score - anchor_iou, case.candidates("cand_pred_iou"), **TOLERANCE)


def test_the_thresholds_are_those_of_the_original(case: DenseCase, explanation: Explanation) -> None:
    threshold = explanation.threshold.view(len(case.targets), -1)
    assert_close(threshold[:, 0], case.array("thr"), **TOLERANCE)
    assert bool((threshold == threshold[:, :1]).all())
    score = explanation.score.view_as(threshold)
    assert_close(score.mean(1), case.array("thr_mean"), **TOLERANCE)
    assert_close(threshold[:, 0] - score.mean(1), case.array("thr_std"), **TOLERANCE)


def test_a_box_keeps_the_candidates_it_keeps_in_the_original(
    case: DenseCase, explanation: Explanation
) -> None:
    kept = torch.tensor([REASONS.index(reason) for reason in ("kept", "lost_to_gt")])
    assert torch.equal(torch.isin(explanation.reason, kept), case.candidates("cand_is_pos"))


def test_the_encoded_targets_are_those_of_the_original(case: DenseCase, assignment: Assignment) -> None:
    gt, prior = positive_order(case, assignment)
    deltas = case.coder.encode_xyxy(case.targets.boxes[gt], case.priors, prior)
    assert_close(deltas, case.array("reg_targets_pos"), **TOLERANCE)


def test_the_quality_targets_are_those_of_the_original(case: DenseCase, assignment: Assignment) -> None:
    gt, prior = positive_order(case, assignment)
    boxes = case.targets.boxes[gt]
    if case.system == "atss":
        # As the original does it: the box decoded again, in inclusive pixels.
        deltas = case.coder.encode_xyxy(boxes, case.priors, prior)
        decoded = inclusive(cxcywh_to_xyxy(case.coder.decode(deltas, case.priors, prior)))
        quality = centerness(case.priors.centers[prior] - 0.5, decoded)
    else:
        predicted = case.predictions().boxes
        assert predicted is not None
        quality = pair_iou(predicted[case.targets.image[gt], prior], boxes)
        assert_close(quality, case.array("iou_scores_pos"), **TOLERANCE)
    assert_close(quality, case.array("quality_targets_pos"), **TOLERANCE)
    assert float(quality.double().sum()) == pytest.approx(float(case.array("sum_quality_targets")), rel=1e-5)


def test_an_image_without_boxes_is_background(case: DenseCase, assignment: Assignment) -> None:
    empty = case.array("gt_count") == 0
    assert bool((assignment.gt_index()[empty] == -1).all())
    assert bool((case.gt_index()[empty] == -1).all())
    assert bool(empty.any()) == bool(str(case.arrays["reference_error_on_empty"]))
