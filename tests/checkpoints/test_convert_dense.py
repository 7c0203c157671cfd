"""Dense checkpoints of other projects: every tensor has a place, or is an error."""

import pytest
import torch
from torch import Tensor

from boxmatch.assign import NearbyGrid
from boxmatch.checkpoints import convert_dense, load_detector
from boxmatch.checkpoints.convert_dense import build_dense
from boxmatch.checkpoints.dense_layout import rename
from boxmatch.models import DenseDetector
from boxmatch.structures import Targets


def mmdetection_names(detector: DenseDetector, prefix: str) -> dict[str, Tensor]:
    """Our weights under the names of MMDetection; written down by hand, not by inverting our rules."""
    state = {}
    for name, tensor in detector.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            state[name] = tensor
        elif name.startswith("fpn.inner_blocks."):
            level, _, kind = rest.split(".", 1)[1].split(".")
            state[f"neck.lateral_convs.{level}.conv.{kind}"] = tensor
        elif name.startswith("fpn.layer_blocks."):
            level, _, kind = rest.split(".", 1)[1].split(".")
            state[f"neck.fpn_convs.{level}.conv.{kind}"] = tensor
        elif name.startswith("fpn.extra_blocks."):
            number, kind = rest.split(".", 1)[1].split(".")
            state[f"neck.fpn_convs.{int(number[1]) - 3}.conv.{kind}"] = tensor
        elif "_tower." in name:
            tower, index, kind = rest.split(".")
            short = "cls" if tower == "class_tower" else "reg"
            layer = "conv" if int(index) % 3 == 0 else "gn"
            state[f"bbox_head.{short}_convs.{int(index) // 3}.{layer}.{kind}"] = tensor
        elif name == "head.scales":
            state |= {f"bbox_head.scales.{level}.scale": scale for level, scale in enumerate(tensor)}
        elif part == "head":
            layer, kind = rest.split(".")
            suffix = {"class_logits": "cls", "boxes": "reg", "quality": "centerness"}[layer]
            state[f"bbox_head.{prefix}{suffix}.{kind}"] = tensor
    return state


def small(family: str) -> DenseDetector:
    """A ResNet-18 detector of the family's shape, with random numbers everywhere."""
    torch.manual_seed(1)
    shape = {
        "retinanet": {
            "group_norm": False,
            "quality": False,
            "top": "p5",
            "anchor_scales": 3,
            "anchor_ratios": (0.5, 1.0, 2.0),
        },
        "fcos": {"box_numbers": "distances"},
    }.get(family, {})
    detector = DenseDetector(
        ["a", "b"],
        backbone="resnet18",
        norm="eval",
        channels=32,
        tower_length=2,
        assigner=NearbyGrid(),
        loss=torch.nn.Identity(),
        **shape,
    )
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if value.is_floating_point() and not (family == "retinanet" and name == "head.scales"):
                value.copy_(
                    torch.rand_like(value) + 0.5 if "running_var" in name else 0.02 * torch.randn_like(value)
                )
    return detector.eval()


@pytest.mark.parametrize(
    ("family", "prefix"), [("atss", "atss_"), ("paa", "atss_"), ("fcos", "conv_"), ("retinanet", "retina_")]
)
def test_mmdetection_layouts_come_back_with_every_tensor(family, prefix, tmp_path):
    ours = small(family)
    state = mmdetection_names(ours, prefix)
    if family == "retinanet":
        state = {name: tensor for name, tensor in state.items() if ".scales." not in name}
    torch.save({"state_dict": state, "meta": {"epoch": 12}}, tmp_path / "original.pth")
    again = convert_dense(tmp_path / "original.pth", tmp_path / "ours", family=family, class_names=["a", "b"])
    assert again.class_names == ("a", "b")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert (tmp_path / "ours" / "detector.safetensors").is_file()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(ours.network(images), again.network(images), strict=True):
            assert torch.equal(mine.logits, theirs.logits)
            assert torch.equal(mine.boxes, theirs.boxes)


def benchmark_state() -> dict[str, Tensor]:
    """The names of maskrcnn-benchmark, for the parts whose names differ most."""
    return {
        "backbone.body.stem.conv1.weight": torch.zeros(1),
        "backbone.body.layer2.0.conv2.conv.weight": torch.zeros(2),
        "backbone.body.layer2.0.conv2.offset.bias": torch.zeros(3),
        "backbone.fpn.fpn_inner4.weight": torch.zeros(4),
        "backbone.fpn.top_blocks.p7.bias": torch.zeros(5),
        "rpn.head.cls_tower.9.conv.weight": torch.zeros(6),
        "rpn.head.bbox_tower.10.bias": torch.zeros(7),
        "rpn.head.iou_pred.weight": torch.zeros(8),
        "rpn.head.scales.0.scale": torch.tensor([2.0]),
        "rpn.head.scales.1.scale": torch.tensor([3.0]),
        "rpn.anchor_generator.cell_anchors.0": torch.zeros(1, 4),
    }


def test_names_of_the_benchmark_family_are_translated():
    renamed = rename(benchmark_state())
    assert set(renamed) == {
        "backbone.conv1.weight",
        "backbone.layer2.0.conv2.weight",
        "backbone.layer2.0.conv2.offset.bias",
        "fpn.inner_blocks.2.0.weight",
        "fpn.extra_blocks.p7.bias",
        "head.class_tower.9.weight",
        "head.box_tower.10.bias",
        "head.quality.weight",
        "head.scales",
    }
    assert renamed["head.scales"].tolist() == [2.0, 3.0]


def test_a_tensor_without_a_place_is_an_error_unless_it_is_dropped_by_name(tmp_path):
    state = mmdetection_names(small("atss"), "atss_") | {"bbox_head.extra.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "original.pth")
    with pytest.raises(ValueError, match=r"1 tensors have no place .* bbox_head\.extra\.weight"):
        convert_dense(tmp_path / "original.pth", family="atss")
    convert_dense(tmp_path / "original.pth", family="atss", drop=["bbox_head.extra.weight"])
    with pytest.raises(ValueError, match="cannot drop nothing"):
        convert_dense(tmp_path / "original.pth", family="atss", drop=["nothing"])


def test_a_missing_tensor_a_wrong_shape_and_a_changed_constant_are_named():
    state = mmdetection_names(small("atss"), "atss_")
    without = {name: tensor for name, tensor in state.items() if name != "bbox_head.atss_reg.bias"}
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*head\.boxes\.bias"):
        build_dense(without, "atss")
    wrong = state | {"bbox_head.atss_reg.bias": torch.zeros(5)}
    with pytest.raises(ValueError, match=r"head\.boxes\.bias of shape \(4,\), got \(5,\)"):
        build_dense(wrong, "atss")
    with pytest.raises(ValueError, match=r"sigma to hold 1\.11"):
        rename(state | {"bbox_head.center_prior.sigma": torch.full((2, 2), 2.0)})


@pytest.mark.parametrize("family", ["atss", "dynamic_atss", "paa", "dual_weight"])
def test_names_of_another_number_of_classes_are_refused(family):
    state = mmdetection_names(small("fcos"), "conv_")
    with pytest.raises(ValueError, match="2 classes, got 3 names"):
        build_dense(state, family, ["a", "b", "c"])


def test_files_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="tensors of a dense detector"):
        build_dense({"encoder.weight": torch.zeros(1)}, "atss")


def test_dual_weighting_converts_saves_and_can_be_trained_on(tmp_path):
    ours = small("fcos")
    state = mmdetection_names(ours, "conv_")
    torch.save(state, tmp_path / "original.pth")
    convert_dense(tmp_path / "original.pth", tmp_path / "ours", family="dual_weight")
    again = load_detector(tmp_path / "ours").train()
    targets = Targets.from_lists([[[4, 4, 40, 40]], []], [[1], []])
    losses = again.losses(torch.rand(2, 3, 64, 64), targets)
    assert all(term.isfinite() for term in losses.values())


def test_only_the_originals_count_edges_as_pixels():
    plain = build_dense(mmdetection_names(small("atss"), "atss_"), "atss")
    assert not plain.loss.inclusive_pixels
    assert not plain.postprocess.inclusive_pixels
    assert plain.assigner.inside_margin == 0.01
    assert plain.architecture["anchor_center"] == 0.0
    assert plain.architecture["anchor_shift"] == 0.0
    assert plain.architecture["input_norm"] == "torchvision"
