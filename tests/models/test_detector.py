"""The one forward path."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from boxmatch.assign import Assigner, AutoAssign, DualWeight, NearbyGrid
from boxmatch.losses import AutoAssignLoss, DualWeightLoss
from boxmatch.models import YOLO, simple_yolo
from boxmatch.postprocess import PostProcess
from boxmatch.structures import Targets

CLASSES = ("cell", "plate")


@pytest.fixture
def detector() -> YOLO:
    torch.manual_seed(0)
    return simple_yolo(CLASSES, channel_sparsity=0.25)


def images(batch: int = 2, height: int = 64, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def targets() -> Targets:
    return Targets.from_lists([[[4, 6, 40, 50], [50, 10, 90, 30]], [[10, 10, 30, 40]]], [[0, 1], [1]])


def test_predictions_have_one_float32_row_per_prior(detector: YOLO) -> None:
    predictions = detector.eval()(images())
    count = 3 * (8 * 12 + 4 * 6 + 2 * 3)
    assert len(detector.priors(images()).boxes) == len(detector.priors((64, 96)).boxes) == count
    assert predictions.logits.shape == (2, count, 2)
    assert predictions.deltas.shape == (2, count, 4)
    assert predictions.boxes is not None
    assert predictions.boxes.shape == (2, count, 4)
    assert predictions.quality is not None
    assert predictions.quality.shape == (2, count)


def test_uint8_and_unit_float_pictures_are_the_same(detector: YOLO) -> None:
    detector.eval()
    assert torch.allclose(detector(images()).logits, detector(images().float() / 255).logits, atol=1e-6)


def test_normalised_pictures_have_the_mean_and_deviation_of_imagenet(detector: YOLO) -> None:
    grey = torch.full((1, 3, 2, 2), 0.5)
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert detector.normalise(grey)[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(50, 83), (33, 31), (1, 1), (300, 500)])
def test_sizes_that_are_no_multiple_of_32_work(detector: YOLO, size: tuple[int, int]) -> None:
    predictions = detector.eval()(images(1, *size))
    assert predictions.logits.shape[1] == len(detector.priors(size).boxes)
    assert len(detector.predict(images(1, *size))) == 1


def test_boxes_are_decoded_in_training_only_for_assigners_that_look_at_them(
    detector: YOLO, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector.train()
    assert detector(images()).boxes is None
    monkeypatch.setattr(NearbyGrid, "uses_predictions", True)
    assert detector(images()).boxes is not None


def test_a_zero_delta_of_nearby_grid_is_the_middle_of_the_cell(detector: YOLO) -> None:
    priors = detector.priors((64, 96))
    deltas = torch.tensor([0.0, 0.0, 0.25, 0.25]).expand(1, len(priors.boxes), 4)
    assert torch.allclose(detector.decode(deltas, priors)[0], priors.boxes, atol=1e-4)


def test_channels_last_gives_the_same_predictions_and_rows_without_a_copy(detector: YOLO) -> None:
    detector.eval()
    expected = detector(images())
    other = copy.deepcopy(detector).to(memory_format=torch.channels_last)
    found = other(images())
    assert torch.allclose(found.logits, expected.logits, atol=1e-4)
    maps = other.network(other.normalise(images()))
    assert maps[0].permute(0, 2, 3, 1, 4).is_contiguous()


def test_losses_are_finite_and_reach_every_parameter(detector: YOLO) -> None:
    terms = detector.train().losses(images(), targets())
    assert set(terms) == {"objectness", "box", "class"}
    total = sum(terms.values())
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ("assigner", "loss"), [(DualWeight(), DualWeightLoss()), (AutoAssign(2), AutoAssignLoss())]
)
def test_soft_methods_can_be_plugged_in_and_learn_what_they_have_to(
    detector: YOLO, assigner: Assigner, loss: nn.Module
) -> None:
    detector.assigner, detector.loss = assigner, loss
    predictions = detector(images())
    assignment = detector.assign(detector.priors(images()), targets(), predictions)
    assert assignment.weight.requires_grad == assigner.keeps_graph
    for batch in (targets(), Targets.from_lists([[], []], [[], []])):
        detector.zero_grad()
        terms = detector.losses(images(), batch)
        assert all(bool(term.isfinite()) for term in terms.values())
        sum(terms.values()).backward()  # type: ignore[union-attr]
        # Without objects too: distributed training waits for every gradient.
        assert all(part.grad is not None for part in detector.parameters() if part.requires_grad)


def test_losses_equal_the_steps_done_by_hand(detector: YOLO) -> None:
    detector.train()
    priors = detector.priors(images())
    predictions = detector(images())
    assignment = detector.assign(priors, targets(), predictions)
    by_hand = detector.loss(priors, targets(), predictions, assignment, detector.coder)
    assert {k: v.item() for k, v in by_hand.items()} == pytest.approx(
        {k: v.item() for k, v in detector.losses(images(), targets()).items()}
    )


def test_pictures_without_boxes_give_finite_losses(detector: YOLO) -> None:
    terms = detector.train().losses(images(), Targets.from_lists([[], []], [[], []]))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())


def test_bfloat16_autocast_gives_float32_rows_and_finite_losses(detector: YOLO) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector.train()(images())
        terms = detector.losses(images(), targets())
    assert predictions.logits.dtype == predictions.deltas.dtype == torch.float32
    assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values())


def test_predict_gives_boxes_inside_each_picture_and_puts_the_mode_back(detector: YOLO) -> None:
    detector.train()
    detector.spp.eval()  # frozen by the user
    before = detector.backbone.bn1.running_mean.clone()
    found = detector.predict(images())
    assert detector.training
    assert detector.backbone.training
    assert not detector.spp.training
    assert torch.equal(detector.backbone.bn1.running_mean, before)
    assert len(found) == 2
    for detections in found:
        assert not detections.boxes.requires_grad
        assert (detections.boxes >= 0).all()
        assert (detections.boxes <= torch.tensor([96, 64, 96, 64])).all()


def test_predict_clips_boxes_to_the_picture_without_its_padding(detector: YOLO) -> None:
    sizes = torch.tensor([[64, 96], [40, 30]])
    plain, found = detector.predict(images()), detector.predict(images(), sizes=sizes)
    assert torch.equal(found[0].boxes, plain[0].boxes)
    assert (plain[1].boxes[:, 2:] > torch.tensor([30, 40])).any()
    assert (found[1].boxes <= torch.tensor([30, 40, 30, 40])).all()


def test_post_processing_can_be_replaced_for_one_call(detector: YOLO) -> None:
    assert len(detector.predict(images(1))[0]) > 3
    assert len(detector.predict(images(1), postprocess=PostProcess(max_detections=3))[0]) == 3
    assert detector.postprocess.max_detections > 3


def test_priors_made_under_inference_mode_can_be_trained_with(detector: YOLO) -> None:
    with torch.inference_mode():
        detector.predict(images())
    sum(detector.train().losses(images(), targets()).values()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (torch.zeros(3, 64, 64), r"expected RGB pictures \(B, 3, H, W\), got \(3, 64, 64\)"),
        (torch.zeros(1, 1, 64, 64), r"expected RGB pictures"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), "uint8 or float in 0..1, got torch.int64"),
        (torch.full((1, 3, 64, 64), 255.0), r"float pictures in 0\.\.1, .* from 255 to 255; .* divide"),
        (torch.full((1, 3, 64, 64), -2.1), "not normalised"),
        (torch.full((1, 3, 64, 64), float("nan")), "float pictures in 0..1"),
    ],
    ids=["no batch", "grey", "integers", "0 to 255", "normalised", "nan"],
)
def test_tensors_that_are_no_pictures_are_refused(detector: YOLO, broken: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector.check(broken)


def test_labels_beyond_the_classes_name_box_and_image(detector: YOLO) -> None:
    wrong = replace(targets(), labels=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"box 2 of the batch \(image 1\): expected a label in 0 .. 1"):
        detector.losses(images(), wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_boxes_that_are_not_finite_name_box_and_image(detector: YOLO, value: float) -> None:
    boxes = targets().boxes.clone()
    boxes[1, 2] = value
    with pytest.raises(ValueError, match=r"box 1 of the batch \(image 0\): expected finite coordinates"):
        detector.losses(images(), replace(targets(), boxes=boxes))


def test_targets_of_another_batch_are_refused(detector: YOLO) -> None:
    with pytest.raises(ValueError, match="targets of 3 pictures, got those of 2"):
        detector.losses(images(3), targets())


@pytest.mark.parametrize(("value", "name"), [(0, "quality"), (1, "box"), (5, "class logit")])
def test_a_network_that_gives_nan_is_named_at_prediction(detector: YOLO, value: int, name: str) -> None:
    with torch.no_grad():
        detector.det_head.heads[1].weight[value] = float("nan")
    with pytest.raises(ValueError, match=rf"gives a {name}.* of level 2 \(stride 16\) that is not"):
        detector.predict(images())
    assert detector.training


def test_mean_and_deviation_move_with_the_detector_but_are_not_saved(detector: YOLO) -> None:
    assert not {"mean", "std"} & set(detector.state_dict())
    assert detector.to("meta").mean.device.type == "meta"
