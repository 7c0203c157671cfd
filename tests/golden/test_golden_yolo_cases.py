"""Assignment, loss, gradients and decoding of whole batches equal the golden cases."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from yolo_case import YOLOCase

from boxmatch.boxes import cxcywh_to_xyxy
from boxmatch.losses import box_similarity, focal_loss

LAYERS = range(3)


@pytest.fixture
def case(case_file: Path) -> YOLOCase:
    return YOLOCase.read(case_file)


@pytest.fixture
def reference_case(case: YOLOCase) -> YOLOCase:
    """A case in which the reference ran to its end and wrote targets."""
    if "ref_gt_0" not in case.arrays:
        pytest.skip("the reference wrote no targets: it crashed, or there is no box")
    return case


def differentiable(case: YOLOCase) -> list[Tensor]:
    return [layer.requires_grad_() for layer in case.raw()]


def gradients(raw: list[Tensor]) -> list[Tensor]:
    """Gradient of each layer as (values, everything else), float64."""
    return [layer.grad.double().flatten(0, 3).T for layer in raw]


def test_raw_outputs_equal_their_checksums(case: YOLOCase) -> None:
    for layer, check in zip(case.raw(), case.arrays["pred_check"], strict=True):
        values = layer.double().flatten()
        found = [values.sum(), values.abs().sum(), values[0], values[len(values) // 2], values[-1]]
        assert_close(torch.stack(found), torch.from_numpy(check), rtol=1e-9, atol=1e-6)


def test_positives_are_exactly_the_golden_ones(case: YOLOCase) -> None:
    index = case.assigner()(case.priors, case.targets).gt_index()
    expected = torch.zeros_like(index, dtype=torch.bool)
    for layer in LAYERS:
        expected[case.positives(layer)] = True
    assert torch.equal(index >= 0, expected)
    assert not (index == -2).any()


def test_each_positive_belongs_to_a_candidate_of_greatest_iou(case: YOLOCase) -> None:
    index = case.assigner()(case.priors, case.targets).gt_index()
    for layer in LAYERS:
        owners = index[case.positives(layer)].tolist()
        intended = case.arrays[f"max_gt_{layer}"].tolist()
        for owner, best, candidates in zip(owners, intended, case.candidates(layer), strict=True):
            assert owner in candidates
            assert candidates[best] >= max(candidates.values()) - 1e-6
            if case.config["filter_by_max_iou"]:
                assert candidates[owner] >= max(candidates.values()) - 1e-6


def test_owners_are_the_intended_ones_down_to_the_ties(case: YOLOCase) -> None:
    if not case.config["filter_by_max_iou"]:
        pytest.skip("without the filter any candidate may own a prior")
    index = case.assigner()(case.priors, case.targets).gt_index()
    for layer in LAYERS:
        owners = index[case.positives(layer)]
        assert owners.tolist() == case.arrays[f"max_gt_{layer}"].tolist()


def test_candidates_are_exactly_the_golden_ones(case: YOLOCase) -> None:
    candidates = case.assigner()(case.priors, case.targets).candidates
    assert candidates is not None
    found = set(zip(candidates.gt.tolist(), candidates.prior.tolist(), strict=True))
    expected = set()
    for layer in LAYERS:
        for prior, rivals in zip(case.positives(layer)[1].tolist(), case.candidates(layer), strict=True):
            expected |= {(gt, prior) for gt in rivals}
    assert found == expected


def test_golden_ious_are_those_of_the_method(case: YOLOCase) -> None:
    boxes, normaliser = case.targets.boxes.double(), case.side**2
    for layer in LAYERS:
        prior = case.positives(layer)[1].tolist()
        rows = [(gt, p) for p, rivals in zip(prior, case.candidates(layer), strict=True) for gt in rivals]
        gt, place = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).unbind(1)
        anchors = case.priors.boxes[place].double()
        if case.config["label_assignment_method"] == "all_grid":
            low, high = (
                torch.maximum(boxes[gt, :2], anchors[:, :2]),
                torch.minimum(boxes[gt, 2:], anchors[:, 2:]),
            )
            shared = (high - low).clamp(min=0).prod(1)
        else:
            shared = torch.minimum(boxes[gt, 2:] - boxes[gt, :2], anchors[:, 2:] - anchors[:, :2]).prod(1)
        areas = (boxes[gt, 2:] - boxes[gt, :2]).prod(1) + (anchors[:, 2:] - anchors[:, :2]).prod(1)
        iou = shared / (areas - shared + 1e-6 * normaliser)
        golden = torch.from_numpy(case.arrays[f"cand_iou_{layer}"]).double()
        assert_close(iou, golden, rtol=1e-5, atol=1e-6)


def test_total_loss_equals_the_intended_one(case: YOLOCase) -> None:
    terms = case.loss_terms(case.raw(), case.assignment("max_gt"))
    assert_close(float(sum(terms.values())), float(case.arrays["int_total"]), rtol=1e-4, atol=1e-7)


def test_loss_of_our_own_assignment_equals_the_intended_one(case: YOLOCase) -> None:
    if not case.config["filter_by_max_iou"]:
        pytest.skip("without the filter the owners are drawn, the golden loss is that of the greatest IoU")
    terms = case.loss_terms(case.raw(), case.assigner()(case.priors, case.targets))
    assert_close(float(sum(terms.values())), float(case.arrays["int_total"]), rtol=1e-4, atol=1e-7)


def test_each_layer_and_term_equals_the_intended_one(case: YOLOCase) -> None:
    raw, assignment = case.raw(), case.assignment("max_gt")
    layers = [case.unweighted(raw, assignment, tuple(float(i == j) for j in LAYERS)) for i in LAYERS]
    expected = torch.from_numpy(case.arrays["int_layers"]).double()
    assert_close(torch.tensor(layers, dtype=torch.float64), expected, rtol=1e-4, atol=1e-7)


def test_objectness_targets_equal_the_intended_ones(case: YOLOCase) -> None:
    deltas = case.predictions(case.raw()).deltas
    kind = case.loss().iou_loss_type
    for layer in LAYERS:
        image, prior = case.positives(layer)
        gt = torch.from_numpy(case.arrays[f"max_gt_{layer}"].astype(np.int64))
        boxes = cxcywh_to_xyxy(case.coder.decode(deltas[image, prior], case.priors, prior))
        target = box_similarity(boxes / case.side, case.targets.boxes[gt] / case.side, kind).clamp(0, 1)
        if case.config["assign_conf_method"] == "constant":
            target = torch.ones_like(target)
        golden = torch.from_numpy(case.arrays[f"int_conf_target_{layer}"])
        assert_close(target, golden, rtol=1e-4, atol=2e-6)


def test_gradients_equal_the_intended_ones(case: YOLOCase) -> None:
    raw = differentiable(case)
    sum(case.loss_terms(raw, case.assignment("max_gt")).values()).backward()
    found = gradients(raw)
    total = torch.stack([layer.sum(1) for layer in found])
    absolute = torch.stack([layer.abs().sum(1) for layer in found])
    golden = torch.from_numpy(case.arrays["int_grad_abs"])
    assert_close(absolute, golden, rtol=2e-3, atol=1e-7)
    # A sum may cancel: it is as exact as the magnitudes it is made of.
    error = (total - torch.from_numpy(case.arrays["int_grad_sum"])).abs()
    assert (error <= 2e-3 * golden + 1e-7).all()


def test_decoded_boxes_and_probabilities_equal_the_reference(case: YOLOCase) -> None:
    predictions = case.predictions(case.raw())
    assert predictions.quality is not None
    boxes = case.coder.decode_all(predictions.deltas, case.priors)
    decoded = torch.cat(
        (predictions.quality.sigmoid().unsqueeze(2), boxes, predictions.logits.sigmoid()), dim=2
    )
    decoded = decoded[:, case.reference_rows()]
    rows = torch.from_numpy(case.arrays["dec_rows"]).long()
    assert_close(decoded[:, rows], torch.from_numpy(case.arrays["dec"]), rtol=1e-4, atol=1e-3)
    probabilities = [0, *range(5, decoded.shape[2])]
    assert_close(
        decoded[:, rows][..., probabilities],
        torch.from_numpy(case.arrays["dec"])[..., probabilities],
        rtol=1e-4,
        atol=1e-6,
    )
    golden = torch.from_numpy(case.arrays["dec_abs"])
    assert_close(decoded.double().abs().sum((0, 1)), golden.double(), rtol=1e-4, atol=1e-3)


def written(case: YOLOCase, layer: int) -> Iterator[tuple[int, set[int], dict[int, float]]]:
    """Owner and classes the reference wrote for each positive of a layer, and the boxes to choose from."""
    owners, classes = case.arrays[f"ref_gt_{layer}"].tolist(), case.arrays[f"ref_cls_{layer}"]
    for owner, row, candidates in zip(owners, classes, case.candidates(layer), strict=True):
        yield owner, set(np.flatnonzero(row).tolist()), candidates


@pytest.mark.parametrize("layer", LAYERS)
def test_the_reference_wrote_boxes_and_classes_of_candidates(reference_case: YOLOCase, layer: int) -> None:
    boxes, labels = reference_case.targets.boxes.tolist(), reference_case.targets.labels.tolist()
    for owner, classes, candidates in written(reference_case, layer):
        assert owner in candidates
        # The file names the first of equal boxes; the reference may have meant another of them.
        assert classes & {labels[gt] for gt in candidates if boxes[gt] == boxes[owner]}
        assert classes <= {labels[gt] for gt in candidates}


def test_the_reference_broke_its_rule_of_the_greatest_iou_as_documented(reference_case: YOLOCase) -> None:
    """The last row wins in single grid and the lowest IoU in nearby grid; all grid keeps its rule."""
    case, boxes = reference_case, reference_case.targets.boxes.tolist()
    method = case.config["label_assignment_method"]
    rows = [row for layer in LAYERS for row in written(case, layer)]
    if method == "single_grid":
        assert all(boxes[owner] == boxes[max(candidates)] for owner, _, candidates in rows)
    elif method == "nearby_grid":
        # It drops neighbours in the order of IoU that share a cell: by chance that may be the lowest.
        lowest = [candidates[owner] <= min(candidates.values()) + 1e-6 for owner, _, candidates in rows]
        assert np.mean(lowest) > 0.99
    elif case.config["filter_by_max_iou"]:
        assert all(candidates[owner] >= max(candidates.values()) - 1e-6 for owner, _, candidates in rows)


def test_the_loss_of_the_reference_follows_from_its_own_targets(case: YOLOCase) -> None:
    """With the owners and classes that the reference wrote, our functions give the total it printed."""
    if "ref_total" not in case.arrays:
        pytest.skip(f"the reference crashed here: {case.config['stats']['ref_assign']}")
    if len(case.targets) and any(len(case.arrays[f"pos_{layer}"]) == 0 for layer in LAYERS):
        # It takes the mean of nothing, see test_each_layer_and_term_equals_the_intended_one for ours.
        assert np.isnan(case.arrays["ref_total"]) and np.isnan(case.arrays["ref_parts"][1:]).all()
        return
    raw, scales, gamma = case.raw(), case.config["lambda_scales"], case.config["focal_loss_gamma"]
    assignment = case.assignment("ref_gt" if len(case.targets) else "max_gt")
    objectness, box, _ = case.unweighted(raw, assignment, tuple(scales))
    logits, classification = case.predictions(raw).logits, 0.0
    if case.classes > 1 and len(case.targets):
        for layer, scale in enumerate(scales):
            several = torch.from_numpy(case.arrays[f"ref_cls_{layer}"].astype(np.float32))
            classification += scale * float(focal_loss(logits[case.positives(layer)], several, gamma).mean())
    parts = torch.tensor([objectness, box, classification])
    assert_close(parts, torch.from_numpy(case.arrays["ref_parts"]), rtol=1e-4, atol=1e-6)
    total = case.config["lambda_obj"] * objectness + case.config["lambda_coord"] * box + classification
    assert_close(total, float(case.arrays["ref_total"]), rtol=1e-4, atol=1e-6)
