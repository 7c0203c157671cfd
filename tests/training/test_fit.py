"""Whole runs of a small detector: what they leave, what stops them."""

import copy
import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from toy import ToyData, ToyDetector

from boxmatch import train
from boxmatch.assign import ATSS, PAA, Assigner, DualWeight, DynamicATSS
from boxmatch.errors import CheckpointError, DivergedError
from boxmatch.losses import DenseLoss, DualWeightLoss
from boxmatch.models.dense import DenseDetector
from boxmatch.train import (
    EMAOptions,
    OptimizerOptions,
    RunResult,
    ScheduleOptions,
    TrainerOptions,
    fit,
    validate,
)

SMALL = TrainerOptions(max_epochs=2, accelerator="cpu", devices=1, progress=False, tensorboard=False)


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than these runs; one test looks at them."""
    if "pictures" not in request.node.name:
        monkeypatch.setattr(train, "_draw", lambda folder: None)


def run(
    output: Path, trainer: TrainerOptions = SMALL, detector: ToyDetector | None = None, **options: Any
) -> RunResult:
    torch.manual_seed(options.get("seed", 0))
    schedule = options.pop("schedule", ScheduleOptions(warmup_epochs=1))
    data = options.pop("data", None) or ToyData()
    return fit(detector or ToyDetector(), data, output=output, trainer=trainer, schedule=schedule, **options)


def weights(result: RunResult) -> Tensor:
    return torch.cat([p.detach().flatten() for p in result.detector.parameters()])


class Altered(ToyDetector):
    """A detector whose losses pass through a function of the step."""

    def __init__(self, alter: Callable[[int, dict[str, Tensor]], dict[str, Tensor]]) -> None:
        super().__init__()
        self.alter, self.step = alter, 0

    def losses(self, *arguments: Any) -> dict[str, Tensor]:
        terms = self.alter(self.step, super().losses(*arguments))
        self.step += 1
        return terms


def test_a_run_leaves_numbers_checkpoints_pictures_and_a_log(tmp_path: Path):
    result = run(tmp_path, replace(SMALL, tensorboard=True, log_every_n_steps=2))
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert {"map", "map_50", "per_class", "last", "best"} <= set(stored)
    assert stored["last"]["epoch"] == 1 and set(stored["per_class"]) == {"square", "block"}
    assert stored["last"]["settings"]["backend"] == "faster_coco_eval"
    assert stored["map_50"] == result.last["map_50"]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"step", "loss", "loss_class", "loss_box", "learning_rate", "map", "map_50", "seconds"} <= set(
        rows[0]
    )
    assert float(rows[0]["loss"]) == pytest.approx(float(rows[0]["loss_class"]) + float(rows[0]["loss_box"]))
    with (tmp_path / "steps.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert [row["step"] for row in steps] == ["2", "4", "6", "8"]
    assert float(steps[0]["gradient_norm"]) > 0
    for name in (
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "curves.png",
        "pr_curves.png",
        "pr_curves.json",
    ):
        assert (tmp_path / name).stat().st_size > 0, name
    assert list((tmp_path / "tensorboard").glob("events*"))
    log = (tmp_path / "train.log").read_text()
    assert "learning rate 0.001 = 0.01 × 0.1 (adam) × 1 process" in log and "epoch 2/2" in log
    assert not (tmp_path / ".lock").exists()


def test_training_lowers_the_loss(tmp_path: Path):
    trainer = replace(SMALL, max_epochs=30, check_val_every_n_epoch=30)
    optimizer = OptimizerOptions("adam", base_lr=0.3)
    run(tmp_path, trainer, ToyDetector(dropout=0.0), optimizer=optimizer)
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.15 * losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path):
    first, second = run(tmp_path / "a", seed=3), run(tmp_path / "b", seed=3)
    assert torch.equal(weights(first), weights(second))
    torch.manual_seed(3)
    detector = ToyDetector()
    other = fit(detector, ToyData(), output=tmp_path / "c", trainer=SMALL, seed=4)
    assert not torch.equal(weights(first), weights(other))


def test_the_average_is_what_gets_evaluated_and_returned(tmp_path: Path):
    live = ToyDetector()
    result = run(tmp_path, detector=live, ema=EMAOptions("constant", 0.99, warmup_steps=0))
    assert result.detector is not live
    assert not torch.equal(weights(result), torch.cat([p.detach().flatten() for p in live.parameters()]))
    again = validate(result.detector, ToyData(), trainer=SMALL)
    for key in ("map", "map_50", "per_class", "curves"):
        assert again[key] == result.last[key], key


def test_a_detector_in_evaluation_mode_is_trained_all_the_same(tmp_path: Path):
    detector = ToyDetector().eval()
    run(tmp_path, replace(SMALL, max_epochs=1), detector, ema=EMAOptions("none"))
    assert int(detector.body[1].num_batches_tracked) == 4


def test_without_an_average_the_live_weights_are_evaluated(tmp_path: Path):
    live = ToyDetector()
    assert run(tmp_path, detector=live, ema=EMAOptions("none")).detector is live


def test_last_and_best_checkpoint_hold_live_weights_and_average(tmp_path: Path):
    result = run(tmp_path)
    for name in ("last", "best"):
        state = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        assert {key.split(".")[0] for key in state} == {"detector", "average"}
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["average.body.0.weight"], result.detector.body[0].weight)


def test_the_last_epoch_is_evaluated_whatever_the_interval(tmp_path: Path):
    run(tmp_path, replace(SMALL, max_epochs=3, check_val_every_n_epoch=2))
    with (tmp_path / "metrics.csv").open() as file:
        assert [bool(row["map_50"]) for row in csv.DictReader(file)] == [False, True, True]


def test_last_is_written_when_best_is_not(tmp_path: Path):
    run(tmp_path, replace(SMALL, max_epochs=3))
    read = {
        n: torch.load(tmp_path / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("last", "best")
    }
    # The toy finds nothing in three epochs: the first evaluation stays the best.
    assert (read["best"]["epoch"], read["last"]["epoch"]) == (0, 2)


@pytest.mark.parametrize("name", ["class", "box"])
def test_a_loss_that_is_not_finite_stops_the_run_in_its_step(tmp_path: Path, name: str):
    def alter(step: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**terms, name: terms[name] * float("nan")} if step == 6 else terms

    with pytest.raises(DivergedError) as error:
        run(tmp_path, detector=Altered(alter))
    text = str(error.value)
    assert f"the loss term {name} is not finite" in text
    assert "epoch 2, step 7, learning rate" in text and text.count("picture_") == 4
    assert str(tmp_path / "checkpoints" / "last.ckpt") in text
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def broken_detector(assigner: Assigner, part: str) -> DenseDetector:
    """A small dense detector: the boxes of its second level, or all classes, are not finite."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "resnet18", "norm": "batch", "channels": 32, "tower_length": 1}
    loss: torch.nn.Module = DenseLoss(quality_target="iou")
    if isinstance(assigner, DualWeight):
        loss, options = DualWeightLoss(), {**options, "box_numbers": "distances", "refine": "zeros"}
    made = DenseDetector(("square", "block"), assigner=assigner, loss=loss, **options)
    with torch.no_grad():
        if part == "box number":
            made.head.scales[1].fill_(math.nan)
        else:
            next(p for name, p in made.head.named_parameters() if p.shape[:1] == (2,)).fill_(math.nan)
    return made


@pytest.mark.parametrize(
    "assigner, part, level",
    [
        (ATSS(), "class logit", 1),
        (PAA(), "box number", 2),
        (DynamicATSS(), "box number", 2),
        (DualWeight(), "class logit", 1),
        (DualWeight(), "box number", 2),
    ],
)
def test_a_network_that_is_not_finite_is_named_with_level_picture_and_rate(
    tmp_path: Path, assigner: Assigner, part: str, level: int
):
    detector = broken_detector(assigner, part)
    with pytest.raises(DivergedError) as error:
        run(tmp_path, detector=detector, data=ToyData(count=4))  # type: ignore[arg-type]
    text = str(error.value)
    stride = 8 * 2 ** (level - 1)
    assert re.search(rf"{part} of level {level} \(stride {stride}\) in picture picture_\d\.png", text)
    assert "epoch 1, step 1, learning rate 0.001; pictures picture_" in text


def test_a_gradient_that_is_not_finite_names_its_weight(tmp_path: Path):
    def alter(step: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        # The square root has an infinite slope at 0 and a finite value.
        return {**terms, "box": terms["box"] + (terms["box"] * 0).sqrt()} if step == 1 else terms

    with pytest.raises(
        DivergedError, match=r"the gradient of body\.0\.weight is not finite .*nothing had been saved"
    ):
        run(tmp_path, detector=Altered(alter))


def test_an_exploding_gradient_is_warned_about_once_per_step(tmp_path: Path):
    def alter(step: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value * 1e4 for key, value in terms.items()} if step == 14 else terms

    run(tmp_path, replace(SMALL, max_epochs=4), detector=Altered(alter))
    lines = [line for line in (tmp_path / "train.log").read_text().splitlines() if "gradient norm is" in line]
    assert len(lines) == 1 and "step 15" in lines[0]


def test_accumulated_batches_make_one_step(tmp_path: Path):
    run(tmp_path / "a", replace(SMALL, accumulate_grad_batches=2, log_every_n_steps=1))
    with (tmp_path / "a" / "steps.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert "over 4 steps of 8 pictures, 2 of them warm-up" in (tmp_path / "a" / "train.log").read_text()


def test_clipping_shortens_the_step(tmp_path: Path):
    optimizer = OptimizerOptions("sgd", momentum=0.0, weight_decay=0.0)
    schedule = ScheduleOptions(cycle_momentum=False)
    moved = {}
    for name, clip in (("free", None), ("clipped", 1e-3)):
        detector = ToyDetector()
        torch.manual_seed(0)
        detector = ToyDetector()
        before = torch.cat([p.detach().flatten().clone() for p in detector.parameters()])
        trainer = replace(SMALL, max_epochs=1, limit_train_batches=1, gradient_clip_val=clip)
        result = fit(
            detector,
            ToyData(),
            output=tmp_path / name,
            trainer=trainer,
            optimizer=optimizer,
            schedule=schedule,
            ema=EMAOptions("none"),
        )
        moved[name] = float((weights(result) - before).norm())
    assert moved["clipped"] < 1e-2 * moved["free"]


@pytest.mark.parametrize("name", ["cosine", "step", "linear"])
def test_every_schedule_trains(tmp_path: Path, name: str):
    schedule = ScheduleOptions(name=name, warmup_epochs=0.5)  # type: ignore[arg-type]
    assert run(tmp_path, replace(SMALL, max_epochs=1), schedule=schedule).last["epoch"] == 0


def test_bfloat16_trains_on_the_cpu(tmp_path: Path):
    result = run(tmp_path, replace(SMALL, max_epochs=1, precision="bf16-mixed"))
    assert torch.isfinite(weights(result)).all()


def test_channels_last_gives_nearly_the_same_weights(tmp_path: Path):
    # Without dropout, whose mask follows the order in memory.
    one = replace(SMALL, max_epochs=1)
    torch.manual_seed(0)
    first = ToyDetector(dropout=0.0)
    # SGD: Adam turns the rounding of a gradient that is zero (the bias before a batch norm) into a full step.
    sgd = OptimizerOptions("sgd", base_lr=1e-3)
    usual = run(tmp_path / "a", one, copy.deepcopy(first), optimizer=sgd)
    other = run(tmp_path / "b", replace(one, channels_last=True), first, optimizer=sgd)
    assert other.detector.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights(usual), weights(other), rtol=1e-3, atol=1e-5)


def test_a_second_run_into_the_folder_is_refused(tmp_path: Path):
    run(tmp_path, replace(SMALL, max_epochs=1))
    with pytest.raises(CheckpointError, match="holds a run already"):
        run(tmp_path, replace(SMALL, max_epochs=1))


def test_a_log_that_fails_is_named_once_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no connection")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", broken)
    result = run(tmp_path, replace(SMALL, tensorboard=True, log_every_n_steps=1))
    assert result.last["epoch"] == 1
    log = (tmp_path / "train.log").read_text()
    assert log.count("cannot write TensorBoardLogger (RuntimeError: no connection)") == 1


def test_a_terminal_shows_a_bar_with_loss_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run(tmp_path, replace(SMALL, progress=True))
    shown = capsys.readouterr().out
    assert "epoch 2/2:" in shown and "loss=" in shown and "mAP.50=" in shown


def test_pictures_without_any_box_train(tmp_path: Path):
    result = run(tmp_path, replace(SMALL, max_epochs=1), data=ToyData(empty_from=0))
    assert result.last["map"] is None
    assert torch.isfinite(weights(result)).all()


def test_options_the_machine_cannot_do_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="sync_batchnorm: works on GPUs only"):
        run(tmp_path, replace(SMALL, sync_batchnorm=True))
    with pytest.raises(ValueError, match=r"trainer\.extra: .*max_epoch"):
        run(tmp_path, replace(SMALL, extra={"max_epoch": 3}))
    with pytest.raises(ValueError, match=r"trainer\.accumulate_grad_batches: expected 1 or more"):
        replace(SMALL, accumulate_grad_batches=0)


def test_output_and_resume_must_agree(tmp_path: Path):
    with pytest.raises(ValueError, match="expected output or resume"):
        fit(ToyDetector(), ToyData(), trainer=SMALL)
    with pytest.raises(ValueError, match="continues in its own folder"):
        fit(ToyDetector(), ToyData(), trainer=SMALL, output=tmp_path / "a", resume=tmp_path / "b")


def test_resuming_other_data_is_refused(tmp_path: Path):
    run(tmp_path, replace(SMALL, max_epochs=1))
    with pytest.raises(CheckpointError, match="the training pictures or boxes differ"):
        fit(ToyDetector(), ToyData(empty_from=12), trainer=SMALL, resume=tmp_path)
    with pytest.raises(CheckpointError, match="the classes differ"):
        fit(ToyDetector(("a", "b")), ToyData(class_names=("a", "b")), trainer=SMALL, resume=tmp_path)


def test_resuming_a_damaged_run_uses_the_generation_before(tmp_path: Path):
    run(tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    result = fit(
        ToyDetector(), ToyData(), trainer=SMALL, resume=tmp_path, schedule=ScheduleOptions(warmup_epochs=1)
    )
    assert result.last["epoch"] == 1
    log = (tmp_path / "train.log").read_text()
    assert "last.ckpt is damaged" in log and "after step 4, in epoch 1" in log


def test_resuming_a_finished_run_returns_its_numbers(tmp_path: Path):
    first = run(tmp_path)
    again = fit(
        ToyDetector(), ToyData(), trainer=SMALL, resume=tmp_path, schedule=ScheduleOptions(warmup_epochs=1)
    )
    assert again.last == first.last
    assert torch.equal(weights(first), weights(again))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="expected val or test"):
        validate(ToyDetector(), ToyData(), split="train")


def test_a_run_of_so_many_steps_stops_within_an_epoch_and_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = replace(SMALL, max_epochs=-1, max_steps=6, check_val_every_n_epoch=5)
    schedule = ScheduleOptions(name="step", warmup="constant", warmup_steps=2, milestones=(4,))
    rated = OptimizerOptions("sgd", base_lr=0.5)
    result = run(tmp_path, options, schedule=schedule, optimizer=rated)
    assert result.last["step"] == 6 and result.last["epoch"] == 1
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["4", "6"] and rows[-1]["map_50"]
    said = capsys.readouterr().out
    assert "step over 6 steps of 4 pictures, 2 of them warm-up" in said
    assert "warning: the learning rate 0.5 is far above" in said and "epoch 2  loss" in said


def test_epochs_of_warm_up_are_counted_without_a_number_of_epochs(tmp_path: Path, capsys):
    run(tmp_path, replace(SMALL, max_epochs=-1, max_steps=5))
    assert "one_cycle over 5 steps of 4 pictures, 4 of them warm-up" in capsys.readouterr().out


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"-1 with trainer\.max_steps"):
        TrainerOptions(max_epochs=-1)
