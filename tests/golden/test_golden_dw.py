"""Dual weighting against the published head: pairs, weights, losses and gradients of `c*.npz`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_case import parametrize_cases
from dw_case import ABSOLUTE, RELATIVE, TERMS, DWCase, assert_near

from boxmatch.assign.center_prior import fixed_center_prior, squared_cells_from_center
from boxmatch.assign.joint_score import joint_score
from boxmatch.assign.negative_weight import bag_curve
from boxmatch.assign.positive_weight import HARD_PRIOR
from boxmatch.boxes import pair_iou_and_giou
from boxmatch.losses import DualWeightLoss, dual_weight
from boxmatch.structures import Predictions

PAIRS = ("image", "point", "gt", "center_prior", "iou", "giou_loss", "p_pos", "neg_metric", "pos_weight")
GRADIENTS = {"cls": 0, "obj": 1, "reg": 2}
"""Their names, and the position of each in `DWCase.inputs`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per file; a folder without any fails."""
    parametrize_cases(metafunc, "dw", pattern="c*.npz")


@pytest.fixture
def case(dense_file) -> DWCase:
    """The file."""
    return DWCase.of(dense_file)


def test_pairs_are_the_points_inside(case):
    assignment = case.assignment()
    order = case.in_file_order(assignment)
    for name, found in (
        ("image", assignment.image),
        ("point", assignment.pairs.prior),
        ("gt", assignment.pairs.gt),
    ):
        np.testing.assert_array_equal(found.numpy()[order], case.array(f"pair_{name}"))


def test_every_step_of_a_pair_is_the_published_one(case):
    assignment, priors, targets = case.assignment(), case.priors, case.targets
    pairs, order = assignment.pairs, case.in_file_order(assignment)
    predictions = case.predictions(*case.inputs()).detach()
    place = assignment.image * len(priors) + pairs.prior
    iou, giou = pair_iou_and_giou(predictions.boxes.flatten(0, 1)[place], targets.boxes[pairs.gt])
    prior = fixed_center_prior(squared_cells_from_center(priors, targets, pairs), sigma=1.11)
    if not bool(case.array("soft_prior")):
        prior = (prior > HARD_PRIOR).float()
    logits = predictions.logits.flatten(0, 1)[place, targets.labels[pairs.gt]]
    joint = joint_score(logits, predictions.quality.flatten()[place], (-5 * (1 - giou)).exp())
    for name, found in (
        ("center_prior", prior),
        ("iou", iou),
        ("giou_loss", 1 - giou),
        ("p_pos", joint),
        ("neg_metric", bag_curve(iou, pairs.gt, len(targets), degenerate="official")),
        ("pos_weight", assignment.weight),
    ):
        assert_near(found.numpy()[order], case.array(f"pair_{name}"))


def test_the_negative_probability_of_every_point_and_class(case):
    assignment = case.assignment()
    images, points, classes = case.array("cls_logit_x16").shape
    found = torch.ones(images, points, classes)
    labels = case.targets.labels[assignment.pairs.gt]
    found[assignment.image, assignment.pairs.prior, labels] = assignment.neg_weight
    expected = torch.ones_like(found)
    entry = tuple(case.tensor(f"pneg_{name}") for name in ("image", "point", "class"))
    expected[entry] = case.tensor("pneg_value")
    assert (case.array("pneg_value") != 1).all()
    assert_near(found, expected.numpy())


def test_losses(case):
    for ours, theirs in TERMS.items():
        assert_near(case.losses()[ours], case.array(theirs))


def test_sums_of_each_image_and_normalisers(case):
    assignment, predictions = case.assignment(), case.predictions(*case.inputs())
    spared = 0.0
    for image in range(case.images):
        one = [
            part[image : image + 1] for part in (predictions.logits, predictions.deltas, predictions.boxes)
        ]
        alone = Predictions(*one, predictions.quality[image : image + 1])
        rows = (case.targets.image == image).nonzero().squeeze(1)
        targets = replace(case.targets.select(rows), image=torch.zeros_like(rows), batch_size=1)
        terms = DualWeightLoss.official()(
            case.priors, targets, alone, case.assigner()(case.priors, targets, alone)
        )
        factor = float(case.array("image_neg_factor")[image])
        for name, sums, normaliser in (
            ("class_positive", "image_cls_pos_sum", len(rows)),
            ("box", "image_loc_sum", len(rows)),
            ("class_negative", "image_cls_neg_sum", factor),
        ):
            assert_near(terms[name] * max(normaliser, 1), case.array(sums)[image])
        spared += factor
    objects, negatives = DualWeightLoss.official().normalisers(case.targets, torch.tensor(spared))
    assert_near(objects, case.array("pos_avg_factor"))
    assert_near(negatives, case.array("neg_avg_factor"))
    # The factor of the batch as the loss itself counts it, each point and class once.
    labels = case.targets.labels[assignment.pairs.gt]
    key = torch.stack((assignment.image, assignment.pairs.prior, labels), 1)
    once = {tuple(row): 1 - value for row, value in zip(key.tolist(), assignment.neg_weight.tolist())}
    assert sum(once.values()) == pytest.approx(spared, rel=RELATIVE, abs=ABSOLUTE)


def test_gradients(case):
    inputs = case.inputs()
    predictions = case.predictions(*inputs)
    assignment = case.assigner()(case.priors, case.targets, predictions)
    terms = DualWeightLoss.official()(case.priors, case.targets, predictions, assignment)
    sum(terms.values()).backward()
    for name, position in GRADIENTS.items():
        found = inputs[position].grad
        assert found is not None, f"expected a gradient for {name}, also where it is 0"
        norms = (found.double().sum(), found.double().abs().sum(), found.double().norm())
        total = float(case.array(f"grad_{name}_norms")[1])
        # The plain sum cancels; its error is that of the sum of the absolute values.
        np.testing.assert_allclose(norms, case.array(f"grad_{name}_norms"), rtol=1e-5, atol=1e-6 * total)
        if f"grad_{name}_index" in case.arrays:
            index, value = case.tensor(f"grad_{name}_index"), case.array(f"grad_{name}_value")
            assert_near(found.flatten()[index], value)
            if name == "reg":  # all others are 0 there, and here but for what float32 hardly holds
                assert float(found.flatten().index_fill(0, index, 0).abs().max()) < 1e-30
        else:
            assert_near(found, case.array(f"grad_{name}"))


def test_the_order_of_the_boxes_matters_as_published_under_last_and_not_at_all_under_min(case):
    if not len(case.targets):
        return
    backwards = case.losses(case.reversed_targets)
    for ours, theirs in TERMS.items():
        assert_near(backwards[ours], case.array(f"reversed_order_{theirs}"))
    assert_near(
        case.losses(case.reversed_targets, neg_conflict="min")["class_negative"],
        case.losses(neg_conflict="min")["class_negative"].detach().numpy(),
    )


def test_normalisers_are_means_over_two_ranks(case, monkeypatch):
    other = torch.tensor([3.0, 10.0])  # boxes and neg factor of the second process
    monkeypatch.setattr(dual_weight, "rank_count", lambda: 2)
    monkeypatch.setattr(dual_weight, "mean_over_ranks", lambda counts: (counts + other) / 2)
    for ours, theirs in TERMS.items():
        assert_near(case.losses()[ours], case.array(f"two_rank_{theirs}"))


def test_every_array_of_the_file_is_read(case, monkeypatch):
    for test in (
        test_pairs_are_the_points_inside,
        test_every_step_of_a_pair_is_the_published_one,
        test_the_negative_probability_of_every_point_and_class,
        test_losses,
        test_sums_of_each_image_and_normalisers,
        test_gradients,
        test_the_order_of_the_boxes_matters_as_published_under_last_and_not_at_all_under_min,
    ):
        test(case)
    test_normalisers_are_means_over_two_ranks(case, monkeypatch)
    assert case.read == set(case.arrays)
    assert {f"pair_{name}" for name in PAIRS} <= case.read
