"""What users do wrong with the dense detectors, and what they are told; one short run of each detector."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToyData

from boxmatch import train
from boxmatch.errors import CheckpointError
from boxmatch.models import atss, dual_weight, dynamic_atss, paa
from boxmatch.models.dense import DenseDetector
from boxmatch.structures import Targets
from boxmatch.train import OptimizerOptions, TrainerOptions, fit, validate

PRESETS: list[Callable[..., DenseDetector]] = [atss, dynamic_atss, paa, dual_weight]
OPTIONS = TrainerOptions(
    max_epochs=1, accelerator="cpu", devices=1, progress=False, tensorboard=False, log_every_n_steps=1
)
NAMES = ("square", "block")
each_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)


def small(preset: Callable[..., DenseDetector], class_names: Sequence[str] = NAMES) -> DenseDetector:
    """The preset's rule, loss and post-processing on a narrow network."""
    torch.manual_seed(0)
    narrow: dict[str, Any] = {"backbone": "resnet18", "channels": 32, "tower_length": 1}
    return preset(class_names, stride_in_1x1=False, **narrow)


def data(class_names: tuple[str, ...] = NAMES) -> ToyData:
    """Four pictures; the two of every second batch, and one of the first, have no boxes."""
    return ToyData(count=4, batch_size=2, empty_from=1, class_names=class_names)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one epoch for each preset, with a learning rate that is far too low."""
    folders = {preset.__name__: tmp_path_factory.mktemp("run") / preset.__name__ for preset in PRESETS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_draw", lambda folder: None)  # curves take longer than these runs
        for preset in PRESETS:
            slow = OptimizerOptions("sgd", base_lr=1e-6)
            fit(small(preset), data(), output=folders[preset.__name__], trainer=OPTIONS, optimizer=slow)
    return folders


@each_preset
def test_pictures_and_batches_without_boxes_train(runs: dict[str, Path], preset):
    with (runs[preset.__name__] / "steps.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2 and all(0 < loss < 1e4 for loss in losses)


@each_preset
def test_a_rate_far_from_what_belongs_to_the_batch_is_warned_about(runs: dict[str, Path], preset):
    log = (runs[preset.__name__] / "train.log").read_text()
    assert "warning: the learning rate 1e-06 is far below 0.00125" in log


@each_preset
def test_resuming_with_other_classes_is_refused(runs: dict[str, Path], preset):
    other = ("a", "b", "c")
    with pytest.raises(CheckpointError, match="the classes differ from the saved run's"):
        fit(small(preset, other), data(other), resume=runs[preset.__name__], trainer=OPTIONS)


@each_preset
def test_a_detector_of_other_classes_than_the_data_is_refused_before_the_first_step(preset, tmp_path: Path):
    with pytest.raises(ValueError, match=r"the detector has 3 classes, the data 2; number 0 is 'a' and 'squ"):
        fit(small(preset, ("a", "b", "c")), data(), output=tmp_path / "run", trainer=OPTIONS)
    assert not (tmp_path / "run").exists()


def test_one_class_too_few_and_another_order_are_other_classes():
    with pytest.raises(
        ValueError, match=r"has 1 classes, the data 2\. Build .* class_names=data\.class_names"
    ):
        validate(small(atss, NAMES[:1]), data(), trainer=OPTIONS)
    with pytest.raises(ValueError, match="number 0 is 'block' and 'square'"):
        validate(small(atss, NAMES[::-1]), data(), trainer=OPTIONS)


@each_preset
@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_names_box_and_picture(preset, label: int):
    targets = Targets.from_lists([[], [[4, 4, 20, 20]]], [[], [0]])
    targets.labels[0] = label
    with pytest.raises(ValueError, match=rf"box 0 .*\(image 1\): expected a label in 0 \.\. 1, .* {label}"):
        small(preset).losses(torch.zeros((2, 3, 32, 32)), targets)


@each_preset
def test_without_any_box_the_loss_is_finite_and_every_weight_has_a_gradient(preset):
    detector = small(preset).train()
    terms = detector.losses(torch.rand((2, 3, 64, 64)), Targets.from_lists([[], []], [[], []]))
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    weights = {name: weight for name, weight in detector.named_parameters() if weight.requires_grad}
    assert [n for n, w in weights.items() if w.grad is None or not bool(w.grad.isfinite().all())] == []


def test_dual_weighting_logs_its_balance_beside_the_loss(runs: dict[str, Path]):
    rows = {}
    for name in ("steps.csv", "metrics.csv"):
        with (runs["dual_weight"] / name).open() as file:
            rows[name] = list(csv.DictReader(file))
    names = ["pairs", "weight_per_box", "shared_priors", "boxes_left_out", "negative_normaliser"]
    assert {*names, "positive_to_negative"} <= set(rows["steps.csv"][0])
    for name in names:
        steps = [float(row[name]) for row in rows["steps.csv"]]
        assert float(rows["metrics.csv"][0][name]) == pytest.approx(sum(steps) / 2)
    first = rows["steps.csv"][0]
    terms = [float(first[f"loss_{name}"]) for name in ("class_positive", "box", "class_negative")]
    assert float(first["loss"]) == pytest.approx(sum(terms))  # what is logged beside it is no part of it
    assert float(first["positive_to_negative"]) == pytest.approx((terms[0] + terms[1]) / terms[2], rel=1e-4)
    with (runs["atss"] / "steps.csv").open() as file:
        assert not {*names} & set(next(csv.reader(file)))
