"""Whole networks against the original's outputs; `golden/models/README.md` describes files and tolerances."""

import copy
import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from weight_recipe import drawn

from boxmatch.checkpoints import convert
from boxmatch.models import YOLO

TOLERANCE = (
    1e-4  # of the output's standard deviation; rounding stays below 4e-5, the smallest mistake gives 1.6e-4
)
TRAIN_TOLERANCE = 5e-4
LEVELS = range(3)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per file of the simple YOLO in the golden folder."""
    folder = Path(metafunc.config.getoption("--golden-dir")).resolve() / "models"
    files = sorted(folder.glob("yolo_*.npz"))
    missing = pytest.param(
        None, marks=pytest.mark.skip(reason=f"no yolo_*.npz in {folder}; give --golden-dir")
    )
    metafunc.parametrize("file", files or [missing], ids=[f.stem for f in files] or ["absent"])


@lru_cache(maxsize=4)
def case(file: Path, folder: Path) -> SimpleNamespace:
    """Arrays, configuration, input, and the network with the recipe's weights, read through our converter."""
    arrays = dict(np.load(file))
    config = json.loads(str(arrays["config_json"]))
    state = {}
    for index, (key, kind, shape) in enumerate(
        zip(arrays["keys"], arrays["kinds"], arrays["shapes"], strict=True)
    ):
        sizes = tuple(int(n) for n in str(shape).split(",") if n)
        state[str(key)] = drawn(index, str(kind), sizes, config["seed"])
        total = state[str(key)].double()
        assert abs(total.sum() - arrays["weight_sum"][index]) <= 1e-6 * total.abs().sum(), key
    torch.save({"state_dict": state, "best_score": 0.0}, folder / "original.pth")
    detector = convert(
        folder / "original.pth",
        method=config["label_assignment_method"],
        anchors=[[tuple(float(n) for n in wh) for wh in level] for level in config["anchor_boxes"]],
    )
    random = np.random.RandomState(config["seed"] * 7)
    size = (config["batch"], 3, config["height"], config["width"])
    images = torch.as_tensor(random.standard_normal(size), dtype=torch.float32)
    return SimpleNamespace(arrays=arrays, config=config, state=state, detector=detector, images=images)


@pytest.fixture
def golden(file: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return case(file, tmp_path_factory.getbasetemp())


@torch.no_grad()
def raw_maps(detector: YOLO, images: Tensor) -> list[np.ndarray]:
    return [m.numpy() for m in detector.network(images)]


def assert_output(golden: SimpleNamespace, name: str, ours: np.ndarray) -> None:
    """Values of image 0, and sum and L2 norm per channel of every image, against the stored ones."""
    stored, std = golden.arrays, golden.config["outputs"][name]["std"]
    assert list(ours.shape) == golden.config["outputs"][name]["shape"]
    assert np.abs(ours[0] - stored[f"out_{name}"]).max() <= TOLERANCE * std
    flat = ours.astype(np.float64).reshape(len(ours), -1, ours.shape[-1])
    typical = std * flat.shape[1] ** 0.5
    for statistic, values in (("l2", np.sqrt((flat**2).sum(1))), ("sum", flat.sum(1))):
        expected = stored[f"{statistic}_{name}"]
        assert (np.abs(values - expected) <= TOLERANCE * np.maximum(np.abs(expected), typical)).all(), (
            statistic
        )


def test_input_is_the_one_the_original_saw(golden: SimpleNamespace) -> None:
    values = golden.images.double()
    found = [values.sum(), values.abs().sum(), values.flatten()[0], values.flatten()[-1]]
    assert np.allclose(found, golden.arrays["input_check"], rtol=1e-9)


def test_conversion_keeps_every_tensor(golden: SimpleNamespace) -> None:
    state = golden.detector.state_dict()
    assert list(state) == list(golden.state)
    assert all(torch.equal(state[name], tensor) for name, tensor in golden.state.items())


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"]
)
def test_raw_outputs_equal_the_original(golden: SimpleNamespace, memory_format: torch.memory_format) -> None:
    detector = copy.deepcopy(golden.detector).to(memory_format=memory_format)
    images = golden.images.to(memory_format=memory_format)
    for level, ours in zip(LEVELS, raw_maps(detector, images), strict=True):
        assert_output(golden, f"raw_{level}", ours)


def test_raw_outputs_in_float64_differ_by_the_original_rounding_only(golden: SimpleNamespace) -> None:
    detector = copy.deepcopy(golden.detector).double()
    for level, ours in zip(LEVELS, raw_maps(detector, golden.images.double()), strict=True):
        error = np.abs(ours[0] - golden.arrays[f"out_raw_{level}"]).max()
        rounding = golden.config["float64_error"][f"raw_{level}"]
        assert error / golden.config["outputs"][f"raw_{level}"]["std"] <= 1.001 * rounding


@torch.no_grad()
def test_decoded_outputs_equal_the_original(golden: SimpleNamespace) -> None:
    detector = golden.detector
    maps = detector.network(golden.images)
    logits, deltas, objectness = detector.flatten(maps)
    boxes = detector.decode(deltas, detector.priors(golden.images))
    size = boxes[..., 2:] - boxes[..., :2]
    center = boxes[..., :2] + size / 2
    decoded = torch.cat([objectness.sigmoid().unsqueeze(-1), center, size, logits.sigmoid()], -1)
    # Inside a level we go row, column, anchor; the original goes anchor, row, column.
    counts = [m.shape[1] * m.shape[2] * m.shape[3] for m in maps]
    parts = [
        rows.unflatten(1, (*m.shape[2:4], m.shape[1])).permute(0, 3, 1, 2, 4).flatten(1, 3)
        for rows, m in zip(decoded.split(counts, 1), maps, strict=True)
    ]
    assert_output(golden, "decoded", torch.cat(parts, 1).numpy())


@torch.no_grad()
def test_features_equal_the_original(golden: SimpleNamespace) -> None:
    detector, arrays = golden.detector, golden.arrays
    c3, c4, c5 = detector.backbone(golden.images)
    spp = detector.spp(c5)
    features: dict[str, Any] = dict(zip(("N3", "N4", "N5"), detector.pan(c3, c4, spp), strict=True))
    features |= {"C3": c3, "C4": c4, "C5": c5, "SPP": spp}
    assert set(features) == set(arrays["feat_names"])
    for row, name in enumerate(arrays["feat_names"]):
        ours = features[name].double()
        assert tuple(ours.shape) == tuple(arrays["feat_shape"][row])
        flat = ours.flatten(1)
        norm = flat.norm(dim=1).numpy()
        assert np.allclose(norm, arrays["feat_l2"][row], rtol=TOLERANCE)
        assert (np.abs(flat.sum(1).numpy() - arrays["feat_sum"][row]) <= TOLERANCE * norm).all()
        sample = flat[0][:: flat.shape[1] // 32][:32].numpy()
        assert np.abs(sample - arrays["feat_sample"][row]).max() <= TOLERANCE * float(flat.std())


def test_train_mode_outputs_and_batch_statistics_equal_the_original(golden: SimpleNamespace) -> None:
    detector, arrays = copy.deepcopy(golden.detector).train(), golden.arrays
    for level, ours in zip(LEVELS, raw_maps(detector, golden.images), strict=True):
        stored, std = arrays[f"train_raw_{level}"], golden.config["outputs"][f"raw_{level}"]["std"]
        found = ours[0] if stored.shape == ours[0].shape else ours[0].flatten()[::7]
        assert np.abs(found - stored).max() <= TRAIN_TOLERANCE * std
        norm = np.sqrt((ours.astype(np.float64) ** 2).reshape(len(ours), -1).sum(1))
        assert np.allclose(norm, arrays[f"train_l2_raw_{level}"], rtol=TRAIN_TOLERANCE)
    sums = [
        tensor.double().sum().item()
        for name, tensor in detector.state_dict().items()
        if name.endswith(("running_mean", "running_var"))
    ]
    expected = arrays["train_bn_sum"]
    assert (np.abs(sums - expected) <= 5e-5 * np.maximum(1, np.abs(expected))).all()
