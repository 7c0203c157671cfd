"""Reading the reference's checkpoints; `tests/golden` compares outputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxmatch.assign import AllGrid
from boxmatch.checkpoints import convert, load_detector
from boxmatch.models import COCO_ANCHORS, YOLO


def original(path: Path, num_classes: int = 3, **options: object) -> tuple[Path, dict[str, Tensor]]:
    """A file as the reference writes it, and its tensors; our names are the reference's."""
    torch.manual_seed(0)
    options.setdefault("channel_sparsity", 0.25)
    state = YOLO([f"c{i}" for i in range(num_classes)], **options).state_dict()
    checkpoint = {
        "cur_epoch": 3,
        "best_score": 0.7,
        "state_dict": state,
        "optimizer": None,
        "scheduler": None,
    }
    torch.save(checkpoint, path / "best.pth")
    return path / "best.pth", state


@pytest.mark.parametrize(
    ("backbone", "channel_sparsity"),
    [
        ("resnet18", 0.25),
        ("resnet18", 10 / 128),
        ("resnet34", 0.125),
        ("resnet50", 0.0625),
        ("resnet101", 0.0625),
        ("darknet", 0.0625),
    ],
)
def test_backbone_width_and_classes_follow_from_the_shapes(
    backbone: str, channel_sparsity: float, tmp_path: Path
) -> None:
    file, state = original(tmp_path, backbone=backbone, channel_sparsity=channel_sparsity)
    detector = convert(file, method="all_grid")
    assert detector.architecture["backbone"] == backbone
    assert detector.architecture["channel_sparsity"] == channel_sparsity
    assert detector.class_names == ("class_0", "class_1", "class_2")
    assert isinstance(detector.assigner, AllGrid)
    assert not detector.training
    converted = detector.state_dict()
    assert list(converted) == list(state)
    assert all(torch.equal(converted[name], tensor) for name, tensor in state.items())


def test_the_converted_file_is_one_of_ours(tmp_path: Path) -> None:
    file, state = original(tmp_path)
    convert(file, tmp_path / "ours", method="single_grid", class_names=["RBC", "WBC", "Platelets"])
    detector = load_detector(tmp_path / "ours")
    assert detector.class_names == ("RBC", "WBC", "Platelets")
    assert detector.coder.method == "single_grid"
    assert all(torch.equal(detector.state_dict()[name], tensor) for name, tensor in state.items())


def test_anchors_per_cell_follow_the_given_anchors(tmp_path: Path) -> None:
    anchors = [level[:2] for level in COCO_ANCHORS]
    file, _ = original(tmp_path, num_classes=3, anchors=anchors)
    assert convert(file, method="all_grid", anchors=anchors).num_classes == 3
    with pytest.raises(
        ValueError, match="head of 16 channels does not fit 3 anchors per cell; give `anchors`"
    ):
        convert(file, method="all_grid")


def test_names_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    file, _ = original(tmp_path)
    with pytest.raises(ValueError, match="3 classes at 3 anchors per cell, got 2 names"):
        convert(file, method="all_grid", class_names=["RBC", "WBC"])


def test_an_unknown_tensor_is_an_error_with_the_nearest_name_until_dropped(tmp_path: Path) -> None:
    file, state = original(tmp_path)
    torch.save({**state, "spp.conv3.0.weight": torch.zeros(1)}, file)
    with pytest.raises(
        ValueError, match=r"1 tensors .*: spp\.conv3\.0\.weight \(nearest: spp\.conv[12]\.0\.weight\)"
    ):
        convert(file, method="all_grid")
    convert(file, method="all_grid", drop=["spp.conv3.0.weight"])


def test_dropping_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    file, _ = original(tmp_path)
    with pytest.raises(ValueError, match=r"cannot drop pan\.up3\.0\.weight \(nearest: pan\.up1\.0\.weight\)"):
        convert(file, method="all_grid", drop=["pan.up3.0.weight"])


def test_a_missing_tensor_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    file, state = original(tmp_path)
    state["pan.up1.0.weights"] = state.pop("pan.up1.0.weight")
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"pan\.up1\.0\.weights \(nearest: pan\.up1\.0\.weight\)"):
        convert(file, method="all_grid")
    with pytest.raises(ValueError, match=r"lacks 1 tensors: pan\.up1\.0\.weight"):
        convert(file, method="all_grid", drop=["pan.up1.0.weights"])


def test_a_wrong_shape_is_an_error(tmp_path: Path) -> None:
    file, state = original(tmp_path)
    state["pan.up1.0.weight"] = torch.zeros(64, 100, 1, 1)
    torch.save(state, file)
    with pytest.raises(
        ValueError, match=r"pan\.up1\.0\.weight of shape \(64, 128, 1, 1\), got \(64, 100, 1, 1\)"
    ):
        convert(file, method="all_grid")


def test_other_networks_are_named_as_such(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no simple YOLO: .* got layer\.weight"):
        convert(tmp_path / "other.pth", method="all_grid")
    _, state = original(tmp_path)
    extra = {f"backbone.layer4.2.{n}": torch.zeros(1) for n in ("conv1.weight", "conv2.weight")}
    torch.save({**state, **extra}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"got stages of \(2, 2, 2, 3\) blocks without bottleneck"):
        convert(tmp_path / "other.pth", method="all_grid")
