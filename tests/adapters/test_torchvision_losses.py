"""With torchvision's rules as assigners, losses and gradients are those of the unchanged model to the bit."""

import pytest
import torch
from tiny_models import Detector, faster_rcnn, fcos, losses, pictures, retinanet

from boxmatch import FCOSRegion, MaxIoU
from boxmatch.adapters.torchvision import restore, use_assigner

RETINANET = MaxIoU(0.5, 0.4, low_quality="keep_argmax")
RPN = MaxIoU(0.7, 0.3, low_quality="keep_argmax")
ROI = MaxIoU(0.5, 0.5, low_quality="off")
CASES = {
    "retinanet": (retinanet, {"assigner": RETINANET}),
    "fcos": (fcos, {"assigner": FCOSRegion()}),
    "rpn and roi heads": (faster_rcnn, {"rpn": RPN, "roi_heads": ROI}),
    "rpn": (faster_rcnn, {"rpn": RPN}),
    "roi heads": (faster_rcnn, {"roi_heads": ROI}),
}
BATCHES = {
    "one without boxes": ((3, 0, 7, 1), (96, 128)),
    "none with boxes": ((0, 0), (96, 128)),
    "one picture": ((12,), (96, 128)),
    "cells of odd size": ((5, 0, 4), (90, 117)),
}


def gradients(model: Detector) -> dict[str, torch.Tensor]:
    """Of every parameter."""
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_unchanged_model(case, batch):
    make, assigners = CASES[case]
    counts, size = BATCHES[batch]
    seed = len(batch)
    own, adapted = make(seed, size), use_assigner(make(seed, size), **assigners)
    data = pictures(counts, seed, size=size)
    expected, found = losses(own, data), losses(adapted, data)
    assert expected.keys() == found.keys()
    for name, loss in expected.items():
        assert torch.equal(found[name], loss), name
    sum(expected.values()).backward()
    sum(found.values()).backward()
    wanted, got = gradients(own), gradients(adapted)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("case", CASES)
def test_the_data_make_the_rules_do_all_they_can(case):
    """Positives, background and anchors between the thresholds all occur above."""
    make, assigners = CASES[case]
    model = use_assigner(make(0), **assigners)
    other = {name: MaxIoU(0.6, 0.2, low_quality="off") for name in assigners}
    data = pictures((3, 0, 7, 1))
    changed = losses(use_assigner(make(0), **other), data)
    found = losses(model, data)
    assert not all(torch.equal(changed[name], found[name]) for name in found)


def test_several_steps_stay_together():
    """Batches of several sizes, one after the other: the grid is made anew when it changes."""
    own, adapted = retinanet(1), use_assigner(retinanet(1), RETINANET)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in (own, adapted)]
    for step, size in enumerate([(96, 128), (80, 128), (96, 128)]):
        data = pictures((2, 3), seed=step, size=size)
        for model, optimizer in zip((own, adapted), optimizers):
            optimizer.zero_grad()
            sum(losses(model, data).values()).backward()
            optimizer.step()
    for wanted, got in zip(own.parameters(), adapted.parameters(), strict=True):
        assert torch.equal(wanted, got)


def test_restored_it_is_the_unchanged_model():
    data = pictures((3, 2))
    for case, (make, assigners) in CASES.items():
        model = make(0)
        expected = losses(model, data)
        other = {name: MaxIoU(0.35, 0.35, low_quality="off") for name in assigners}
        use_assigner(model, **other)
        assert not all(torch.equal(losses(model, data)[name], expected[name]) for name in expected), case
        assert all(torch.equal(losses(restore(model), data)[name], expected[name]) for name in expected), case


def test_a_box_that_overlaps_no_anchor_is_where_the_rules_differ():
    """torchvision rescues every anchor that overlaps nothing; here such a box learns nothing."""
    model = retinanet()
    images, targets = pictures((0,))
    targets[0] = {"boxes": torch.tensor([[-900.0, -900.0, -800.0, -800.0]]), "labels": torch.tensor([1])}
    matched = []
    model.head.compute_loss = lambda *args: matched.append(args[3][0]) or {}
    model(images, targets)
    use_assigner(model, RETINANET)(images, targets)
    assert (matched[0] == 0).all()
    assert (matched[1] == -1).all()
