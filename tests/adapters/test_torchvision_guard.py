"""Targets that no model can learn are refused before the model sees them."""

import pytest
import torch
from tiny_models import faster_rcnn, fcos, losses, pictures, retinanet

from boxmatch import ATSS, MaxIoU
from boxmatch.adapters.torchvision import use_assigner

MODELS = {
    "retinanet": lambda: use_assigner(retinanet(), ATSS()),
    "fcos": lambda: use_assigner(fcos(), ATSS()),
    "faster_rcnn": lambda: use_assigner(faster_rcnn(), rpn=MaxIoU.rpn()),
}
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=MODELS)
def model(request):
    """Each kind of model, and a backbone that must not be asked."""
    model = MODELS[request.param]()
    model.backbone.forward = lambda images: pytest.fail("the model saw the targets")
    return model


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([10.0, 10.0, NAN, 30.0], 1, "expected finite coordinates, got .*nan"),
        ([-INF, 10.0, 30.0, 30.0], 1, "expected finite coordinates, got .*inf"),
        ([10.0, 10.0, 10.0, 30.0], 1, r"expected x1 < x2 and y1 < y2, got \[10.0, 10.0, 10.0, 30.0\]"),
        ([10.0, 30.0, 20.0, 12.0], 1, "expected x1 < x2 and y1 < y2"),
        ([10.0, 10.0, 30.0, 30.0], 4, r"expected a label in \d .. 3.* with label 4"),
        ([10.0, 10.0, 30.0, 30.0], -1, r"expected a label in \d .. 3.* with label -1"),
    ],
)
def test_the_message_names_picture_and_box(model, box, label, message):
    images, targets = pictures((2, 0, 3))
    targets[2]["boxes"][1] = torch.tensor(box)
    targets[2]["labels"][1] = label
    with pytest.raises(ValueError, match=f"^image 2 of the batch, box 1: {message}"):
        model(images, targets)
    targets[2]["image_id"] = torch.tensor(4711)
    with pytest.raises(ValueError, match=r"^image 2 of the batch \(image_id 4711\), box 1: "):
        model(images, targets=targets)


def test_a_label_is_missing(model):
    images, targets = pictures((2, 3))
    targets[1]["labels"] = targets[1]["labels"][:2]
    with pytest.raises(
        ValueError, match=r"^image 1 of the batch: expected a tensor of 3 labels.* got \(2,\)"
    ):
        model(images, targets)
    del targets[1]["labels"]
    with pytest.raises(ValueError, match="got NoneType"):
        model(images, targets)


def test_the_background_is_a_class_of_one_stage_models_and_none_of_two_stage_models():
    images, targets = pictures((2,))
    targets[0]["labels"][1] = 0
    for name in ("retinanet", "fcos"):
        assert all(bool(loss.isfinite()) for loss in losses(MODELS[name](), (images, targets)).values())
    with pytest.raises(ValueError, match=r"box 1: expected a label in 1 .. 3 \(0 is the background\)"):
        MODELS["faster_rcnn"]()(images, targets)


def test_classes_that_cannot_be_told_are_not_guessed():
    model = faster_rcnn()
    model.roi_heads.box_predictor = torch.nn.Identity()
    use_assigner(model, rpn=MaxIoU.rpn())
    model.backbone.forward = lambda images: pytest.fail("the model saw the targets")
    images, targets = pictures((2,))
    targets[0]["labels"][0] = 0
    with pytest.raises(ValueError, match=r"expected a label of 1 or more \(0 is the background\)"):
        model(images, targets)


def test_what_torchvision_refuses_itself_it_still_refuses():
    images, targets = pictures((2, 1))
    for make in MODELS.values():
        with pytest.raises(AssertionError, match="targets should not be none"):
            make()(images)
        with pytest.raises(AssertionError, match=r"\[N, 4\]"):
            make()(images, [targets[0], {**targets[1], "boxes": torch.zeros(1, 5)}])


def test_targets_are_not_looked_at_in_evaluation():
    images, targets = pictures((1,))
    targets[0]["labels"][0] = 99
    for make in MODELS.values():
        with torch.no_grad():
            assert len(make().eval()(images, targets)) == 1
