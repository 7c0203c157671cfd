"""Whole dense networks against the originals' outputs; `golden/models/README.md` has files and tolerances."""

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from weight_recipe import drawn

from boxmatch.checkpoints.convert_dense import build_dense

TOLERANCE = 1e-4  # of the output's deviation; rounding stays below 4e-5, the smallest mistake gives 1.6e-4
FILES = (
    "atss_r50",
    "atss_x101_64x4d",
    "paa_r50",
    "paa_dcnv2_r101",
    "dw_r50_refine",
    "dw_r50_plain",
    "dw_r50_dconv",
)
OUTPUTS = {"cls": "logits", "box": "boxes", "dist": "boxes", "iou": "quality", "ctr": "quality"}
FAST = ("atss_r50", "dw_r50_refine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per file; the large networks are behind `-m slow`."""
    folder = Path(metafunc.config.getoption("--golden-dir")).resolve() / "models"
    absent = pytest.mark.skip(reason=f"no folder {folder}; give --golden-dir")
    marks = [] if folder.is_dir() else [absent]
    parameters = [
        pytest.param(
            folder / f"{name}.npz", id=name, marks=marks + ([] if name in FAST else [pytest.mark.slow])
        )
        for name in FILES
    ]
    metafunc.parametrize("file", parameters)


def family(file: Path) -> str:
    """The method that the file's name starts with."""
    return {"dw": "dual_weight"}.get(file.stem.split("_")[0], file.stem.split("_")[0])


@lru_cache(maxsize=1)
def case(file: Path) -> SimpleNamespace:
    """Arrays, configuration, and our maps of every level for the stored input."""
    arrays = dict(np.load(file))
    config = json.loads(str(arrays["config_json"]))
    state = {}
    entries = zip(arrays["keys"], arrays["kinds"], arrays["shapes"], arrays["weight_sum"], strict=True)
    for index, (key, kind, shape, expected) in enumerate(entries):
        sizes = tuple(int(n) for n in str(shape).split(",") if n)
        if str(kind) == "keep":
            state[str(key)] = torch.full(sizes, 1.11 if str(key).endswith("sigma") else 0.0)
            continue
        tensor = drawn(index, str(kind), sizes, config["seed"])
        total = tensor.double()
        assert abs(total.sum() - expected) <= 1e-6 * total.abs().sum(), key
        state[str(key)] = tensor
    size = (config["batch"], 3, config["height"], config["width"])
    random = np.random.RandomState(config["seed"] * 7)
    images = torch.as_tensor(random.standard_normal(size), dtype=torch.float32)
    detector = build_dense(state, family(file))
    with torch.no_grad():
        features = detector.backbone(images)
        pyramid = detector.fpn.levels(features)
        maps = detector.head(pyramid, (8, 16, 32, 64, 128))
    found = {"C3": features[0], "C4": features[1], "C5": features[2]}
    found |= {f"P{level}": feature for level, feature in enumerate(pyramid, start=3)}
    return SimpleNamespace(arrays=arrays, config=config, images=images, maps=maps, features=found)


def test_the_input_is_the_one_the_original_saw(file: Path) -> None:
    golden = case(file)
    values = golden.images.double()
    found = [values.sum(), values.abs().sum(), values.flatten()[0], values.flatten()[-1]]
    assert np.allclose(found, golden.arrays["input_check"], rtol=1e-9)


def test_the_maps_of_backbone_and_pyramid_equal_the_original(file: Path) -> None:
    golden = case(file)
    compared = 0
    for row, name in enumerate(golden.arrays["feat_names"]):
        if str(name) not in golden.features:
            continue
        ours = golden.features[str(name)].double().numpy()
        assert list(ours.shape) == golden.arrays["feat_shape"][row].tolist()
        std = ours.std()
        flat = ours[0].reshape(-1)
        sample = flat[np.arange(32) * (flat.size // 32)]
        assert np.abs(sample - golden.arrays["feat_sample"][row]).max() <= TOLERANCE * std
        per_image = ours.reshape(len(ours), -1)
        norm = np.sqrt((per_image**2).sum(1))
        assert np.allclose(norm, golden.arrays["feat_l2"][row], rtol=TOLERANCE)
        scale = std * per_image.shape[1] ** 0.5
        assert np.abs(per_image.sum(1) - golden.arrays["feat_sum"][row]).max() <= TOLERANCE * scale * 10
        compared += 1
    assert compared == len(golden.features)


def test_the_outputs_of_every_level_equal_the_original(file: Path) -> None:
    golden = case(file)
    for name, about in golden.config["outputs"].items():
        kind, level = name.split("_P")
        ours = getattr(golden.maps[int(level) - 3], OUTPUTS[kind]).numpy()
        assert list(ours.shape) == about["shape"]
        # Some distance channels of the coarse levels are 0 after the ReLU.
        std = about["std"]
        assert np.abs(ours[0] - golden.arrays[f"out_{name}"]).max() <= TOLERANCE * std, name
        flat = ours.astype(np.float64).reshape(*ours.shape[:2], -1)
        typical = std * flat.shape[2] ** 0.5
        for statistic, values in (("l2", np.sqrt((flat**2).sum(2))), ("sum", flat.sum(2))):
            expected = golden.arrays[f"{statistic}_{name}"]
            bound = TOLERANCE * np.maximum(np.abs(expected), typical)
            assert (np.abs(values - expected) <= bound).all(), (name, statistic)
