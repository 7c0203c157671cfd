"""Saving and loading detectors."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from boxmatch.assign import AllGrid, NearbyGrid
from boxmatch.checkpoints import load_detector, save_detector
from boxmatch.coders import GridCoder
from boxmatch.losses import YOLOLoss
from boxmatch.models import YOLO, simple_yolo
from boxmatch.postprocess import PostProcess

PICTURES = torch.randint(
    0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


def unusual() -> YOLO:
    """A detector with no option at its default."""
    return YOLO(
        ["RBC", "WBC", "Platelets"],
        backbone="darknet",
        channel_sparsity=0.125,
        anchors=[[(10.0, 13.5), (16.0, 30.0)], [(30.0, 61.0), (62.0, 45.0)], [(116.0, 90.0), (156.0, 198.0)]],
        activation="silu",
        head_bias=True,
        prior_probability=0.02,
        coder=GridCoder("all_grid", "exp", (320, 416)),
        assigner=AllGrid(match_iou_thres=0.3, filter_by_max_iou=False, seed=7),
        loss=YOLOLoss(iou_loss_type="giou", focal_loss_gamma=2.0, lambda_scales=(1.0, 2.0, 0.5)),
        postprocess=PostProcess(nms_iou=0.4, score_threshold=0.0),
    )


@pytest.fixture
def detector() -> YOLO:
    torch.manual_seed(0)
    return simple_yolo(["a", "b"], channel_sparsity=0.25)


def test_a_saved_detector_comes_back_with_all_options_and_equal_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = unusual()
    saved.train()(PICTURES)  # moves the batch statistics
    loaded = load_detector(save_detector(saved, tmp_path))
    assert type(loaded) is YOLO
    assert not loaded.training
    assert loaded.class_names == ("RBC", "WBC", "Platelets")
    assert loaded.architecture == saved.architecture
    assert loaded.coder == saved.coder
    assert vars(loaded.loss) | {"training": True} == vars(saved.loss)
    assert (loaded.assigner.match_iou_thres, loaded.assigner.filter_by_max_iou, loaded.assigner.seed) == (
        0.3,
        False,
        7,
    )
    assert loaded.postprocess == saved.postprocess
    for one, other in zip(loaded.predict(PICTURES), saved.predict(PICTURES), strict=True):
        assert len(one) > 0
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)


def test_folder_and_file_names_lead_to_the_same_file(detector: YOLO, tmp_path: Path) -> None:
    assert save_detector(detector, tmp_path / "run") == tmp_path / "run" / "detector.safetensors"
    assert save_detector(detector, tmp_path / "best.safetensors") == tmp_path / "best.safetensors"
    for path in ("run", "run/detector.safetensors", "best.safetensors"):
        assert load_detector(str(tmp_path / path)).class_names == ("a", "b")


def test_the_json_beside_it_describes_the_file(detector: YOLO, tmp_path: Path) -> None:
    file = save_detector(detector, tmp_path)
    description = json.loads((tmp_path / "detector.json").read_text())
    assert description["class_names"] == ["a", "b"]
    assert description["detector"]["class"] == "YOLO"
    assert description["detector"]["arguments"]["backbone"] == "resnet18"
    assert description["coder"]["arguments"]["method"] == "nearby_grid"
    assert description["assigner"]["class"] == "NearbyGrid"
    assert description["file"] == {
        "name": "detector.safetensors",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_channels_last_and_bfloat16_weights_survive(detector: YOLO, tmp_path: Path) -> None:
    detector.to(torch.bfloat16, memory_format=torch.channels_last)
    loaded = load_detector(save_detector(detector, tmp_path))
    weight = detector.backbone.layer1[0].conv1.weight
    assert torch.equal(loaded.backbone.layer1[0].conv1.weight, weight.float())


@pytest.mark.parametrize("keep", [0, 4, 200, 0.5, -1])
def test_a_cut_file_is_called_damaged(detector: YOLO, tmp_path: Path, keep: float) -> None:
    file = save_detector(detector, tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"detector\.safetensors is damaged"):
        load_detector(tmp_path)


def test_a_changed_byte_is_called_damaged(detector: YOLO, tmp_path: Path) -> None:
    file = save_detector(detector, tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="does not match its checksum"):
        load_detector(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(
    detector: YOLO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save_detector(detector, tmp_path).read_bytes()

    def full(_: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "fsync", full)
        save_detector(simple_yolo(["c"], channel_sparsity=0.25), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["detector.json", "detector.safetensors"]
    assert (tmp_path / "detector.safetensors").read_bytes() == before
    assert load_detector(tmp_path).class_names == ("a", "b")


def test_weights_of_others_are_sent_to_convert(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no boxmatch detector; .*boxmatch convert"):
        load_detector(tmp_path / "other.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no detector at .*detector\.safetensors"):
        load_detector(tmp_path)


class Mine(NearbyGrid):
    """An assigner the package does not know."""


def test_an_assigner_of_ones_own_is_passed_in_at_loading(tmp_path: Path) -> None:
    save_detector(YOLO(["a"], channel_sparsity=0.25, assigner=Mine(match_iou_thres=0.2)), tmp_path)
    with pytest.raises(
        ValueError, match=r"assigner '.*Mine', which boxmatch .* load_detector\(path, assigner="
    ):
        load_detector(tmp_path)
    loaded = load_detector(tmp_path, assigner=Mine(match_iou_thres=0.2))
    assert type(loaded.assigner) is Mine
    assert loaded.coder == GridCoder("nearby_grid")


@pytest.mark.parametrize("name", ["eval", "os.system", "Predictions", "inspect", "Assigner", 3])
def test_a_file_cannot_name_anything_but_a_part(detector: YOLO, tmp_path: Path, name: object) -> None:
    rewrite(save_detector(detector, tmp_path), "assigner", {"class": name, "arguments": {}})
    with pytest.raises(ValueError, match=r"assigner|description does not fit"):
        load_detector(tmp_path)


def test_arguments_of_another_version_are_named(detector: YOLO, tmp_path: Path) -> None:
    file = save_detector(detector, tmp_path)
    rewrite(file, "postprocess", {"class": "PostProcess", "arguments": {"soft_nms": True}})
    with pytest.raises(ValueError, match=r"does not fit boxmatch .*soft_nms.*written by version"):
        load_detector(tmp_path)


def test_a_format_of_the_future_is_named(detector: YOLO, tmp_path: Path) -> None:
    rewrite(save_detector(detector, tmp_path), "format", "boxmatch detector 9")
    with pytest.raises(ValueError, match=r"format 'boxmatch detector 9', .* update boxmatch"):
        load_detector(tmp_path)


def test_an_argument_that_json_cannot_hold_is_refused_at_saving(detector: YOLO, tmp_path: Path) -> None:
    detector.loss.lambda_coord = torch.tensor(0.1)
    with pytest.raises(ValueError, match="plain arguments of YOLOLoss"):
        save_detector(detector, tmp_path)
    assert not list(tmp_path.iterdir())


def rewrite(file: Path, key: str, value: object) -> None:
    """Change one entry of the description, with the checksum that belongs to it."""
    from boxmatch.checkpoints.saved import _digest

    with safe_open(file, framework="pt") as content:
        weights = {name: content.get_tensor(name) for name in list(content.keys())}
        text = json.dumps({**json.loads(content.metadata()["boxmatch"]), key: value}, sort_keys=True)
    save_file(weights, file, metadata={"boxmatch": text, "sha256": _digest(text, weights)})
