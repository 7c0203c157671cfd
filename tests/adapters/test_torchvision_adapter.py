"""What `use_assigner` changes in a model, what it leaves alone, and what it refuses."""

import copy
import pickle
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from jaxtyping import TypeCheckError
from tiny_models import CLASSES, faster_rcnn, fcos, losses, pictures, retinanet
from torch import nn

from boxmatch import (
    ATSS,
    FCOSRegion,
    Hungarian,
    MaxIoU,
    RandomAssigner,
    SimOTA,
    SingleGrid,
    TaskAligned,
)
from boxmatch.adapters.torchvision import restore, use_assigner
from boxmatch.adapters.torchvision.anchors import nominal_stride
from boxmatch.assign import Assigner
from boxmatch.assign.story import Story
from boxmatch.boxes import pair_iof
from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

DATA = pictures((3, 0, 5))


class Spy(Assigner):
    """Matches as another method does, and keeps what it was given."""

    uses_predictions: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.like = ATSS()

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        self.seen = (priors, targets, predictions)
        return self.like.assign(priors, targets, predictions, story)


class IgnoresTheRest(Assigner):
    """Gives each box a prior in its middle; all others take no part."""

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assignment = FCOSRegion(ranges=[(0, torch.inf)] * 3).assign(priors, targets, predictions, story)
        learned = assignment.gt_index() >= 0
        return replace(assignment, ignored=~learned)


class Shares(Assigner):
    """Gives the first prior to all boxes."""

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        rows = torch.arange(len(targets))
        return Assignment.hard(Pairs(rows, torch.zeros_like(rows)), targets, len(priors))


def finite(found: dict[str, torch.Tensor]) -> bool:
    """No loss is inf or nan."""
    return all(bool(loss.isfinite()) for loss in found.values())


@pytest.mark.filterwarnings("ignore:.*lie outside their box")
@pytest.mark.parametrize("make", [retinanet, fcos])
@pytest.mark.parametrize(
    "assigner", [ATSS(), SingleGrid(), FCOSRegion(), Hungarian(), RandomAssigner(ATSS()), MaxIoU(0.3, 0.2)]
)
def test_one_stage_models_train_with_it(make, assigner):
    model = use_assigner(make(), assigner)
    found = losses(model, DATA)
    assert finite(found)
    sum(found.values()).backward()
    assert all(bool(part.grad.isfinite().all()) for part in model.parameters())


def test_two_stage_models_train_with_it():
    model = use_assigner(faster_rcnn(), rpn=ATSS(), roi_heads=RandomAssigner(MaxIoU.rcnn()))
    found = losses(model, DATA)
    assert finite(found)
    sum(found.values()).backward()


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_learning_two_pictures_by_heart_lowers_the_loss(make):
    model = use_assigner(make(), ATSS())
    data = pictures((2, 3), seed=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for _ in range(25):
        loss = sum(losses(model, data).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.75 * history[0]


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_predictions_are_what_the_head_says_with_the_boxes_it_would_detect(make):
    spy = Spy()
    model = use_assigner(make(), spy)
    outputs = []
    model.head.register_forward_hook(lambda *args: outputs.append(args[2]))
    anchors = []
    model.anchor_generator.register_forward_hook(lambda *args: anchors.extend(args[2]))
    losses(model, DATA)
    priors, targets, predictions = spy.seen
    assert torch.equal(predictions.logits, outputs[0]["cls_logits"])
    assert torch.equal(predictions.deltas, outputs[0]["bbox_regression"])
    for image, of_image in enumerate(anchors):
        assert torch.equal(priors.boxes, of_image)
        decode = model.box_coder.decode if make is fcos else model.box_coder.decode_single
        assert torch.equal(predictions.boxes[image], decode(outputs[0]["bbox_regression"][image], of_image))
    if make is fcos:
        assert torch.equal(predictions.quality, outputs[0]["bbox_ctrness"][..., 0])
    else:
        assert predictions.quality is None
    assert [(level.height, level.width, level.stride) for level in priors.levels] == [
        (12, 16, 8),
        (6, 8, 16),
        (3, 4, 32),
    ]
    assert targets.labels.tolist() == torch.cat([target["labels"] for target in DATA[1]]).tolist()
    assert targets.image.tolist() == [0] * 3 + [2] * 5


@pytest.mark.parametrize("method", [TaskAligned(), SimOTA()])
def test_soft_assignments_are_refused_or_taken_as_hard(method):
    with pytest.raises(
        ValueError, match=f"the loss of RetinaNet can express.* from {type(method).__name__};"
    ):
        losses(use_assigner(retinanet(), method), DATA)
    found = losses(use_assigner(retinanet(), method, soft="as_hard"), DATA)
    assert finite(found)


def test_a_prior_with_several_boxes_is_refused_even_as_hard():
    with pytest.raises(ValueError, match="expected one box per prior, got 3"):
        losses(use_assigner(retinanet(), Shares(), soft="as_hard"), DATA)


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_ignored_priors_teach_the_classes_nothing(make):
    model = use_assigner(make(), IgnoresTheRest())
    outputs = {}

    def keep(_module, _inputs, output):
        outputs.update(output)
        output["cls_logits"].retain_grad()

    hook = model.head.register_forward_hook(keep)
    losses(model, DATA)["classification"].backward()
    hook.remove()
    index = matched_of(model, DATA)
    assert set(index.unique().tolist()) == {-2, *range(5)}
    gradient = outputs["cls_logits"].grad.abs().sum(2)
    assert torch.equal(gradient == 0, index == -2)


def matched_of(model, data) -> torch.Tensor:
    """Row of each prior, as the head is told."""
    seen = []
    head_loss = model.head.compute_loss
    model.head.compute_loss = lambda *args: seen.append(args[3]) or head_loss(*args)
    losses(model, data)
    return torch.stack(seen[0])


@pytest.mark.parametrize("make", [retinanet, fcos])
def test_crowds_are_ignore_regions(make):
    images, targets = pictures((3,))
    region = torch.tensor([[0.0, 0.0, 64.0, 96.0]])
    crowd = {
        "boxes": torch.cat([region, targets[0]["boxes"]]),
        "labels": torch.cat([torch.tensor([1]), targets[0]["labels"]]),
        "iscrowd": torch.tensor([1, 0, 0, 0]),
    }
    spy = Spy()
    plain = matched_of(use_assigner(make(), spy), (images, targets))[0]
    found = matched_of(use_assigner(make(), ATSS()), (images, [crowd]))[0]
    inside = pair_iof(spy.seen[0].boxes, region.expand(plain.shape[0], 4)) >= 0.5
    expected = torch.where(plain >= 0, plain + 1, torch.where(inside, -2, -1))
    assert torch.equal(found, expected)
    assert set(expected.tolist()) == {-2, -1, 1, 2, 3}


def test_crowds_are_ignore_regions_of_two_stage_models():
    images, targets = pictures((2,))
    crowd = {
        "boxes": torch.cat([targets[0]["boxes"], torch.tensor([[0.0, 0.0, 128.0, 96.0]])]),
        "labels": torch.cat([targets[0]["labels"], torch.tensor([1])]),
        "iscrowd": torch.tensor([0, 0, 1]),
    }
    model = use_assigner(faster_rcnn(), rpn=MaxIoU.rpn(), roi_heads=MaxIoU.rcnn())
    seen = {}

    def watch(part: nn.Module, method: str) -> None:
        own = getattr(part, method)

        def keep(*args):
            found = own(*args)
            seen[method] = tuple(map(tuple, found))  # the model sifts its lists later
            return found

        setattr(part, method, keep)

    watch(model.rpn, "assign_targets_to_anchors")
    watch(model.roi_heads, "assign_targets_to_proposals")
    losses(model, (images, [crowd]))
    anchor_labels, boxes = seen["assign_targets_to_anchors"]
    assert set(anchor_labels[0].tolist()) >= {-1.0, 1.0}
    assert not (boxes[0][anchor_labels[0] == 1] == crowd["boxes"][2]).all(1).any()
    rows, labels = seen["assign_targets_to_proposals"]
    # The last proposals are the boxes themselves: two objects, and the crowd, which takes no part.
    assert labels[0][-3:].tolist() == [*targets[0]["labels"].tolist(), -1]
    assert rows[0][-3:-1].tolist() == [0, 1]


def test_points_outside_their_box_take_no_part_in_the_loss_of_fcos():
    images, targets = pictures((1,))
    targets[0]["boxes"] = torch.tensor([[25.0, 25.0, 27.0, 27.0]])  # no point of stride 8 lies within
    nearest = RandomAssigner(Hungarian())
    with pytest.warns(UserWarning, match="1 of 1 positive points lie outside their box"):
        found = losses(use_assigner(fcos(), nearest), (images, targets))
    assert finite(found)
    assert found["bbox_regression"].item() == found["bbox_ctrness"].item() == 0


def test_state_type_and_inference_stay_those_of_the_model():
    for make, assigners in ((retinanet, {"assigner": ATSS()}), (faster_rcnn, {"rpn": ATSS()})):
        plain, adapted = make(), use_assigner(make(), **assigners)
        assert type(adapted) is type(plain)
        assert list(adapted.state_dict()) == list(plain.state_dict())
        assert [name for name, _ in adapted.named_modules()] == [name for name, _ in plain.named_modules()]
        with torch.no_grad():
            expected, found = plain.eval()(DATA[0]), adapted.eval()(DATA[0])
        for one, other in zip(expected, found, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_restoring_leaves_no_trace():
    for make, assigners in (
        (fcos, {"assigner": ATSS()}),
        (faster_rcnn, {"rpn": ATSS(), "roi_heads": ATSS()}),
    ):
        plain, model = make(), make()
        use_assigner(model, **{name: MaxIoU() for name in assigners})
        assert restore(use_assigner(model, **assigners)) is model
        for one, other in zip(plain.modules(), model.modules(), strict=True):
            assert one.__dict__.keys() == other.__dict__.keys()
            assert not other._forward_hooks and not other._forward_pre_hooks
        restore(model)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_an_assigner_of_its_own(copier):
    for make, assigners in (
        (retinanet, {"assigner": ATSS()}),
        (faster_rcnn, {"rpn": ATSS(), "roi_heads": MaxIoU.rcnn()}),
    ):
        model = use_assigner(make(), **assigners)
        double = copier(model)
        untouched = losses(model, DATA)
        # Another size makes another grid, and must make it in the copy alone.
        assert finite(losses(double, pictures((2,), size=(64, 64))))
        assert all(torch.equal(losses(model, DATA)[name], untouched[name]) for name in untouched)
        if "compute_loss" in double.__dict__:
            assert double.compute_loss.model is double
        restore(double)
        assert all(torch.equal(losses(model, DATA)[name], untouched[name]) for name in untouched)
        assert not double._forward_pre_hooks and model._forward_pre_hooks


def test_under_autocast_the_grid_is_that_of_float32():
    spy = Spy()
    model = use_assigner(retinanet(), spy)
    losses(model, DATA)
    plain = spy.seen[0]
    model = use_assigner(retinanet(), spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert finite(losses(model, DATA))
    half = spy.seen[0]
    assert half.levels == plain.levels
    # Cell anchors themselves were rounded by torchvision.
    assert torch.equal(half.centers, plain.centers)
    torch.testing.assert_close(half.boxes, plain.boxes, rtol=0, atol=0.5)


def test_anchors_on_no_even_grid_are_free_boxes():
    spy = Spy()
    spy.like = MaxIoU()
    model = retinanet()
    make_anchors = model.anchor_generator.grid_anchors
    model.anchor_generator.grid_anchors = lambda *args: [
        part + 0.3 * part.sin() for part in make_anchors(*args)
    ]
    own = losses(model, DATA)
    use_assigner(model, MaxIoU(low_quality="keep_argmax"))
    assert all(torch.equal(losses(model, DATA)[name], own[name]) for name in own)
    losses(use_assigner(model, spy), DATA)
    assert spy.seen[0].levels == ()


@pytest.mark.parametrize(
    ("image", "cells", "stride"),
    [
        ((800, 1344), (13, 21), 64),
        ((800, 1344), (7, 11), 128),
        ((800, 1344), (100, 168), 8),
        ((96, 128), (8, 11), 12),
        ((64, 64), (1, 1), 64),
    ],
)
def test_strides_are_called_by_their_usual_name(image, cells, stride):
    assert nominal_stride(image, cells) == stride


def test_assigners_in_places_that_do_not_exist_are_refused():
    for model, wrong in (
        (retinanet(), {}),
        (retinanet(), {"rpn": ATSS()}),
        (fcos(), {"assigner": ATSS(), "roi_heads": ATSS()}),
    ):
        with pytest.raises(ValueError, match="expected assigner alone"):
            use_assigner(model, **wrong)
    for wrong in ({}, {"assigner": ATSS()}, {"assigner": ATSS(), "rpn": ATSS()}):
        with pytest.raises(ValueError, match=r"expected rpn=\.\.\., roi_heads=\.\.\. or both"):
            use_assigner(faster_rcnn(), **wrong)
    with pytest.raises(ValueError, match=r"expected a RetinaNet, an FCOS or a FasterRCNN.* got Linear"):
        use_assigner(nn.Linear(1, CLASSES), ATSS())


def test_methods_that_a_place_cannot_serve_are_refused():
    for place in ("rpn", "roi_heads"):
        with pytest.raises(ValueError, match=f"{place}: TaskAligned reads predictions"):
            use_assigner(faster_rcnn(), **{place: TaskAligned()})
    learner = ATSS()
    learner.keeps_graph = True
    with pytest.raises(ValueError, match="ATSS learns while it assigns"):
        use_assigner(retinanet(), learner)
    with pytest.raises((ValueError, TypeCheckError), match="soft"):
        use_assigner(retinanet(), ATSS(), soft="maybe")
