"""The dense loss against its formulas, and with every hard assigner on one head."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxmatch.boxes import pair_iou
from boxmatch.delta_coder import DeltaCoder
from boxmatch.losses import DenseLoss, centerness, giou_loss
from boxmatch.models import DenseDetector
from boxmatch.priors import PointGrid
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

sys.path.append(str(Path(__file__).resolve().parents[1] / "assign"))
from every_assigner import EVERY_ASSIGNER

PRIORS = PointGrid((8, 16), size=4)([(3, 4), (2, 2)])
TARGETS = Targets.from_lists([[[2, 2, 20, 18], [4, 6, 30, 22]], []], [[1, 0], []])
CODER = DeltaCoder()


def predict(seed: int = 0, classes: int = 3) -> Predictions:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(2, len(PRIORS), *shape, generator=generator).requires_grad_()

    return Predictions(logits=draw(classes), deltas=draw(4), quality=draw())


def assigned(*listed: tuple[int, int], ignored: tuple[tuple[int, int], ...] = ()) -> Assignment:
    gt, prior = torch.tensor(listed, dtype=torch.int64).reshape(-1, 2).unbind(1)
    assignment = Assignment.hard(Pairs(gt, prior), TARGETS, len(PRIORS), levels=PRIORS.levels)
    for image, place in ignored:
        assignment.ignored[image, place] = True
    return assignment


def by_hand(loss: DenseLoss, predictions: Predictions, assignment: Assignment) -> dict[str, float]:
    """The class docstring's formulas as loops in double precision."""
    pairs = list(zip(assignment.pairs.gt.tolist(), assignment.pairs.prior.tolist(), strict=True))
    boxes = CODER.decode_boxes(predictions.deltas.detach(), PRIORS)
    quality, share, target = {}, [], {}
    for number, (gt, prior) in enumerate(pairs):
        image, label = int(TARGETS.image[gt]), int(TARGETS.labels[gt])
        box, truth = boxes[image, prior][None], TARGETS.boxes[gt][None]
        iou = float(pair_iou(box, truth))
        u = iou if loss.quality_target == "iou" else float(centerness(PRIORS.centers[prior][None], truth))
        quality[number] = u
        share.append(float(assignment.weight[number]) * (1.0 if loss.quality_target is None else u))
        y = float(assignment.score[number]) * (iou if loss.class_target == "iou" else 1.0)
        key = (image, prior, label)
        target[key] = max(y, target.get(key, 0.0))
    total = {"class": 0.0, "box": 0.0, "quality": 0.0}
    logits = predictions.logits.detach().double()
    for image in range(2):
        for prior in range(len(PRIORS)):
            for label in range(logits.shape[2]):
                x = logits[image, prior, label]
                p, rises, falls = (
                    x.sigmoid(),
                    torch.nn.functional.softplus(x),
                    torch.nn.functional.softplus(-x),
                )
                y = target.get((image, prior, label))
                if y is None:
                    if bool(assignment.ignored[image, prior]):
                        continue
                    factor = {"focal": 1 - (loss.alpha or 0), "vfl": loss.alpha or 0}.get(
                        loss.class_loss, 1.0
                    )
                    value = factor * (p**loss.gamma if loss.gamma else 1.0) * rises
                else:
                    entropy = y * falls + (1 - y) * rises
                    value = {
                        "focal": (loss.alpha or 0) * (1 - p) ** loss.gamma * falls,
                        "qfl": (y - p).abs() ** loss.gamma * entropy,
                        "vfl": y * entropy,
                        "bce": entropy,
                    }[loss.class_loss]
                total["class"] += float(value)
    count = max(float(assignment.weight.sum()), 1.0)
    for number, (gt, prior) in enumerate(pairs):
        image = int(TARGETS.image[gt])
        giou = float(giou_loss(boxes[image, prior][None], TARGETS.boxes[gt][None]))
        total["box"] += loss.box_weight * share[number] * giou
        x, u = predictions.quality[image, prior].detach().double(), quality[number]
        entropy = u * torch.nn.functional.softplus(-x) + (1 - u) * torch.nn.functional.softplus(x)
        total["quality"] += loss.quality_weight * float(entropy) / count
    total["class"] /= count
    total["box"] /= count if loss.quality_target is None else max(sum(share), 1e-6)
    return total


@pytest.mark.parametrize("class_loss", ["focal", "qfl", "vfl", "bce"])
@pytest.mark.parametrize("class_target", ["assigned", "iou"])
@pytest.mark.parametrize("quality_target", ["centerness", "iou", None])
def test_terms_follow_the_formulas(class_loss, class_target, quality_target):
    if class_loss == "focal" and class_target == "iou":
        pytest.skip("refused by the constructor, see below")
    loss = DenseLoss(class_loss=class_loss, class_target=class_target, quality_target=quality_target)
    assignment = assigned((0, 0), (0, 5), (1, 5), (1, 13), ignored=((0, 3), (1, 7), (1, 8)))
    predictions = predict()
    terms = loss(PRIORS, TARGETS, predictions, assignment, CODER)
    expected = by_hand(loss, predictions, assignment)
    assert set(terms) == ({"class", "box"} if quality_target is None else {"class", "box", "quality"})
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name], rel=2e-5), name


def test_soft_scores_and_weights_enter_the_targets_and_the_averages():
    loss = DenseLoss(class_loss="bce", quality_target=None)
    assignment = replace(
        assigned((0, 0), (1, 5), (1, 6)),
        weight=torch.tensor([0.5, 0.0, 1.0]),
        score=torch.tensor([0.25, 1.0, 0.0]),
    )
    predictions = predict(1)
    terms = loss(PRIORS, TARGETS, predictions, assignment, CODER)
    logits = predictions.logits.detach()
    everything = torch.nn.functional.softplus(logits).sum()
    everything -= 0.25 * logits[0, 0, 1] + 1.0 * logits[0, 5, 0]
    assert terms["class"].item() == pytest.approx(float(everything) / 1.5, rel=1e-5)


def test_a_batch_without_pairs_has_exact_zeros_and_a_gradient_for_every_output():
    predictions = predict()
    terms = DenseLoss()(PRIORS, TARGETS, predictions, assigned(), CODER)
    assert terms["box"] == 0 and terms["quality"] == 0
    assert terms["class"] > 0
    sum(terms.values()).backward()
    assert predictions.deltas.grad is not None and (predictions.deltas.grad == 0).all()
    assert predictions.quality.grad is not None and (predictions.quality.grad == 0).all()
    assert predictions.logits.grad is not None and predictions.logits.grad.abs().sum() > 0


def test_ignored_priors_get_no_class_gradient():
    predictions = predict()
    DenseLoss()(PRIORS, TARGETS, predictions, assigned((0, 0), ignored=((0, 3),)), CODER)["class"].backward()
    assert (predictions.logits.grad[0, 3] == 0).all()
    assert (predictions.logits.grad[0, 4] != 0).all()


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_saturated_logits_give_finite_values_and_gradients(value):
    predictions = predict()
    with torch.no_grad():
        predictions.logits.fill_(value)
        predictions.quality.fill_(value)
    for class_loss in ("focal", "qfl", "vfl", "bce"):
        terms = DenseLoss(class_loss=class_loss)(PRIORS, TARGETS, predictions, assigned((0, 0)), CODER)
        grads = torch.autograd.grad(
            sum(terms.values()), (predictions.logits, predictions.deltas, predictions.quality)
        )
        assert all(part.isfinite().all() for part in (*terms.values(), *grads))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_loss": "focal", "class_target": "iou"}, "focal takes targets of 1"),
        ({"class_loss": "qfl", "alpha": 0.5}, "expected alpha"),
        ({"alpha": 2.0}, "expected alpha"),
        ({"gamma": 0.5}, "gamma"),
        ({"box_weight": -1.0}, "finite weights"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DenseLoss(**options)


def test_a_missing_quality_branch_and_a_foreign_label_are_named():
    predictions = predict()
    without = Predictions(predictions.logits, predictions.deltas)
    with pytest.raises(ValueError, match="quality branch"):
        DenseLoss()(PRIORS, TARGETS, without, assigned((0, 0)), CODER)
    with pytest.raises(ValueError, match=r"labels below 1"):
        DenseLoss()(PRIORS, TARGETS, predict(classes=1), assigned((0, 0)), CODER)


# Variants of a method differ in numbers, not in what the loss sees of them.
METHODS = [name if " " not in name else pytest.param(name, marks=pytest.mark.slow) for name in EVERY_ASSIGNER]


@pytest.mark.parametrize("name", METHODS)
def test_every_hard_assigner_trains_on_the_same_head(name):
    """A few steps on two pictures; the loss falls."""
    torch.manual_seed(0)
    assigner = EVERY_ASSIGNER[name]()
    detector = DenseDetector(
        [str(number) for number in range(3)],
        backbone="resnet18",
        norm="batch",
        frozen_stages=0,
        channels=32,
        tower_length=1,
        anchor_size=4,
        assigner=assigner,
        loss=DenseLoss(class_loss="qfl", quality_target="iou"),
    ).train()
    images = torch.rand(2, 3, 64, 64)
    targets = Targets.from_lists([[[4, 6, 40, 44], [20, 16, 60, 60]], [[8, 8, 36, 30]]], [[0, 1], [2]])
    optimizer = torch.optim.Adam(detector.parameters(), lr=2e-3)
    totals = []
    for _ in range(4):
        loss = sum(detector.losses(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert min(totals[-2:]) < totals[0]
