"""The parts of dense detectors, and their published sizes."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionNorm

from boxmatch.assign import NearbyGrid
from boxmatch.models.box_refinement import refine_distances
from boxmatch.models.deformable import DeformableConv2d
from boxmatch.models.dense import DenseDetector
from boxmatch.models.dense_backbone import DenseBackbone
from boxmatch.models.dense_head import DenseHead
from boxmatch.models.fpn import FPN
from boxmatch.models.frozen_norm import FrozenBatchNorm2d

COCO = [f"class_{number}" for number in range(80)]
# specs of ATSS / PAA (section 1.4) and DW (section 1), measured on the originals; DW's counts hold 320
# constants of the centre prior that are no parameters here.
DEFORMABLE = {"deformable_stages": (3, 4), "deformable_tower": True}
SIZES = [
    ({"backbone": "resnet50"}, 32_244_250, 32_021_850),
    ({"backbone": "resnet101"}, 51_184_154, None),
    ({"backbone": "resnext101_64x4d"}, 89_992_730, None),
    ({"backbone": "resnet101", **DEFORMABLE, "deformable_stages": (2, 3, 4)}, 53_237_882, None),
    ({"backbone": "resnext101_32x8d", **DEFORMABLE}, 102_670_094, None),
    ({"backbone": "resnext101_64x4d", **DEFORMABLE}, 97_334_030, None),
    ({"backbone": "resnext152_32x8d", **DEFORMABLE}, 139_394_157, None),
    ({"norm": "eval", "box_numbers": "distances", "refine": "zeros"}, 32_316_130 - 320, None),
    ({"backbone": "resnet101", "norm": "eval", "box_numbers": "distances"}, 51_289_818 - 320, None),
]


def detector(class_names=("a", "b"), **options) -> DenseDetector:
    return DenseDetector(class_names, assigner=NearbyGrid(), loss=nn.Identity(), **options)


@pytest.mark.parametrize(("options", "count", "trainable"), SIZES)
def test_networks_have_the_published_number_of_parameters(options, count, trainable):
    with torch.device("meta"):
        ours = detector(COCO, **options)
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    if trainable is not None:
        assert ours.num_parameters == trainable


def test_predictions_come_in_the_order_of_the_priors():
    ours = detector(backbone="resnet18", channels=32, tower_length=1).eval()
    images = torch.rand(2, 3, 96, 160)
    with torch.no_grad():
        predictions = ours(images)
        maps = ours.network(ours.normalise(images))
    priors = ours.priors(images)
    assert predictions.logits.shape == (2, len(priors), 2)
    # Row 1, column 2 of stride 16: after the 12 × 20 cells of stride 8.
    prior = 12 * 20 + 1 * 10 + 2
    assert torch.equal(predictions.logits[1, prior], maps[1].logits[1, :, 1, 2])
    assert torch.equal(predictions.deltas[1, prior], maps[1].boxes[1, :, 1, 2])
    assert predictions.quality is not None
    assert torch.equal(predictions.quality[1, prior], maps[1].quality[1, 0, 1, 2])


def test_several_anchors_per_place_and_a_pyramid_from_c5_work():
    shapes = {"anchor_size": 4.0, "anchor_scales": 3, "anchor_ratios": (0.5, 1.0, 2.0), "anchor_center": 0.0}
    ours = detector(
        backbone="resnet18",
        channels=32,
        tower_length=1,
        **shapes,
        quality=False,
        group_norm=False,
        top="c5",
    )
    priors = ours.priors((64, 64))
    assert priors.levels[0].anchors == 9
    assert priors.wh[0].tolist() == pytest.approx([32 * 2**0.5, 32 / 2**0.5])
    with torch.no_grad():
        predictions = ours.eval()(torch.rand(1, 3, 64, 64))
    assert predictions.quality is None
    assert predictions.deltas.shape == (1, len(priors), 4)


def test_an_untrained_network_believes_in_objects_with_the_prior_probability():
    head = DenseHead(32, 2, levels=1, tower_length=1, prior_probability=0.02)
    with torch.no_grad():
        (level,) = head([torch.randn(1, 32, 8, 8)], (8,))
    assert level.logits.sigmoid().mean().item() == pytest.approx(0.02, rel=0.2)


def test_distances_start_at_four_strides_and_are_never_negative():
    head = DenseHead(32, 2, levels=2, tower_length=1, box_numbers="distances")
    maps = head([torch.randn(1, 32, 4, 4), torch.randn(1, 32, 2, 2)], (8, 16))
    assert maps[0].boxes.mean().item() == pytest.approx(32, rel=0.1)
    assert maps[1].boxes.mean().item() == pytest.approx(64, rel=0.1)
    with torch.no_grad():
        head.boxes.bias.fill_(-5.0)
    assert (head([torch.randn(1, 32, 4, 4)] * 2, (8, 16))[0].boxes == 0).all()


def test_caffe_input_is_blue_green_red_in_bytes_less_the_mean():
    ours = detector(backbone="resnet18", channels=32, tower_length=1, input_norm="caffe")
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 255
    expected = torch.tensor([-102.9801, -115.9465, 255 - 122.7717])
    assert torch.allclose(ours.normalise(red)[0, :, 0, 0], expected)
    assert torch.allclose(ours.normalise(red.float() / 255), ours.normalise(red))


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_frozen_norm_is_batch_norm_in_evaluation(eps):
    reference, ours = TorchvisionNorm(5, eps=eps), FrozenBatchNorm2d(5, eps)
    state = {name: torch.rand(5) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")}
    reference.load_state_dict(state)
    ours.load_state_dict(state)
    features = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(ours(features), reference(features))
    assert not list(ours.parameters())


def test_a_deformable_convolution_without_offsets_is_half_the_plain_one():
    layer = DeformableConv2d(8, 6, stride=2, groups=2, bias=True)
    nn.init.zeros_(layer.offset.weight)
    features = torch.randn(2, 8, 7, 9)
    plain = nn.functional.conv2d(features, layer.weight / 2, layer.bias, stride=2, padding=1, groups=2)
    torch.testing.assert_close(layer(features), plain, rtol=1e-4, atol=1e-5)  # sigmoid(0) = 1/2


def test_strides_move_to_the_first_convolution_and_the_maps_keep_their_size():
    plain = DenseBackbone("resnet50")
    moved = DenseBackbone("resnet50", stride_in_1x1=True)
    assert plain.layer2[0].conv2.stride == moved.layer2[0].conv1.stride == (2, 2)
    assert plain.layer2[0].conv1.stride == moved.layer2[0].conv2.stride == (1, 1)
    with torch.no_grad():
        shapes = [[m.shape for m in net.eval()(torch.rand(1, 3, 65, 64))] for net in (plain, moved)]
    assert shapes[0] == shapes[1]
    assert [tuple(shape[1:]) for shape in shapes[0]] == [(512, 9, 8), (1024, 5, 4), (2048, 3, 2)]


@pytest.mark.parametrize("norm", ["frozen", "eval", "batch"])
def test_frozen_stages_neither_learn_nor_change_their_statistics(norm):
    net = DenseBackbone("resnet18", norm=norm, frozen_stages=2).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sum(m.mean() for m in net(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is None for part in (net.conv1, net.bn1, net.layer1) for p in part.parameters())
    assert all(p.grad is not None for p in net.layer4.parameters())
    changed = {
        name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == ({"layer2", "layer3", "layer4"} if norm == "batch" else set())


def test_frozen_statistics_hold_before_anybody_chooses_a_mode():
    made = DenseBackbone("resnet18", norm="eval", frozen_stages=0)
    before = made.bn1.running_mean.clone()
    made(torch.rand(1, 3, 64, 64))
    assert torch.equal(made.bn1.running_mean, before) and made.training


def test_refinement_without_offsets_of_a_constant_field_changes_nothing_inside():
    distances = torch.full((1, 4, 9, 9), 16.0)
    refined = refine_distances(distances, torch.zeros(1, 8, 9, 9), 8.0)
    # Two cells to the left the left side is read from a box two cells further left.
    assert (refined[0, :, 4, 4] == 32).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseBackbone("resnet51"), "backbone among|Type-check"),
        (lambda: DenseBackbone("resnet50", norm="none"), "norm in|Type-check"),
        (lambda: DenseBackbone("resnet50", frozen_stages=6), "frozen_stages in 0"),
        (lambda: DenseBackbone("resnet50", deformable_stages=(1,)), "among 2, 3, 4"),
        (lambda: DenseBackbone("resnet18", deformable_stages=(3,)), "no bottlenecks"),
        (lambda: DenseBackbone("resnext152_32x8d", pretrained=True), "there are none"),
        (lambda: FPN((64, 128, 256), 256, top="c5"), "other than 256"),
        (lambda: FPN((64, 128, 256), 256, top="p6"), "expected top|Type-check"),
        (lambda: DenseHead(30, 2), "multiple of 32"),
        (lambda: DenseHead(32, 2, refine="zeros"), "needs box_numbers='distances'"),
        (lambda: DenseHead(32, 2, refine="wrap", box_numbers="distances"), "expected border|Type-check"),
        (lambda: DenseHead(32, 2, prior_probability=1.0), "prior_probability in"),
        (lambda: FrozenBatchNorm2d(3, -1.0), "eps of 0 or more"),
        (lambda: detector(input_norm="caffe2"), "input_norm in|Type-check"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, message):
    # Words that are no choice are met by the tests' type checker before the constructor sees them.
    with pytest.raises(Exception, match=message):
        make()
