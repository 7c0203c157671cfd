"""Train a detector, or measure one: the two functions that the commands and other programs call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from boxmatch.errors import CheckpointError, ProcessLostError
from boxmatch.metrics import EvaluationSettings
from boxmatch.training.callbacks import SaveCheckpoints, WriteMetrics
from boxmatch.training.checkpoint_io import read_newest
from boxmatch.training.guard import RunStopped, StepGuard, StopRequest
from boxmatch.training.lit import LitDetector
from boxmatch.training.logs import Logs
from boxmatch.training.options import EMAOptions, OptimizerOptions, ScheduleOptions, TrainerOptions
from boxmatch.training.record import run_record
from boxmatch.training.run_folder import RunFolder
from boxmatch.training.run_log import is_first_process, run_log, say
from boxmatch.training.streams import DataPosition, RandomStates
from boxmatch.training.trainer import make_loggers, make_trainer

__all__ = [
    "EMAOptions",
    "LitDetector",
    "OptimizerOptions",
    "RunResult",
    "ScheduleOptions",
    "TrainerOptions",
    "fit",
    "validate",
]


@dataclass(frozen=True)
class RunResult:
    """What a training run leaves.

    Args:
        folder: the run folder.
        last: the last evaluation, as in metrics.json; empty if there was none.
        best: the best evaluation.
        detector: the network with the weights of the last step, averaged where an average was kept.
    """

    folder: Path
    last: Mapping[str, Any]
    best: Mapping[str, Any]
    detector: nn.Module


def fit(
    detector: nn.Module,
    data: pl.LightningDataModule,
    *,
    optimizer: OptimizerOptions | None = None,
    schedule: ScheduleOptions | None = None,
    ema: EMAOptions | None = None,
    trainer: TrainerOptions | None = None,
    evaluation: EvaluationSettings | None = None,
    output: Path | str | None = None,
    seed: int = 0,
    resume: Path | str | None = None,
) -> RunResult:
    """Train a detector, evaluate it after every epoch, keep the best and the last state.

    Args:
        detector: with `losses`, `predict` and `class_names` as `boxmatch.models.Detector` has them.
        data: with loaders of `Batch` and `annotations(split)` as `boxmatch.data.module.DataModule` has them.
        optimizer: optimiser and learning rate.
        schedule: course of the learning rate.
        ema: average of the weights, which is what gets evaluated and kept.
        trainer: devices, length, precision, logs.
        evaluation: backend and limits of the metric.
        output: run folder; must not hold a run.
        seed: of the random streams of training (the data have their own).
        resume: folder of a stopped run, which is continued there; the same as `output` where both are given.

    Raises:
        ValueError: the detector has other classes than the data.
        CheckpointError: the folder is in use or taken, or the run cannot be continued.
        DivergedError: a loss term or gradient was not finite.
        ProcessLostError: another process of a distributed run is gone.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after the step was finished and saved.
    """
    folder = _folder(output, resume)
    _check_classes(detector, data)
    options = trainer or TrainerOptions()
    if options.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    optimizer, schedule, ema = (
        optimizer or OptimizerOptions(),
        schedule or ScheduleOptions(),
        ema or EMAOptions(),
    )
    settings = {"optimizer": optimizer, "schedule": schedule, "ema": ema, "trainer": options, "seed": seed}
    with folder.occupied(resume is not None), run_log(folder.log):
        module = LitDetector(
            detector,
            optimizer=optimizer,
            schedule=schedule,
            ema=ema,
            evaluation=evaluation,
            channels_last=options.channels_last,
            record=run_record(detector, data, settings),
        )
        metrics = _run(module, data, options, folder, seed, resume is not None)
        _draw(folder)
    return RunResult(folder.root, metrics.last or {}, metrics.best or {}, module.evaluated)


def _folder(output: Path | str | None, resume: Path | str | None) -> RunFolder:
    root = resume if resume is not None else output
    if root is None:
        raise ValueError("expected output or resume, got neither; give the folder the run is written into")
    if output is not None and Path(output).resolve() != Path(root).resolve():
        raise ValueError(
            f"a resumed run continues in its own folder {root}, got output {output}; leave output out"
        )
    return RunFolder(root)


def _check_classes(detector: nn.Module, data: pl.LightningDataModule) -> None:
    """Labels are numbers: with other names, or the same in another order, they would mean other classes."""
    ours: list[str] = list(getattr(detector, "class_names", ()))
    theirs: list[str] = list(getattr(data, "class_names", ours))
    if ours != theirs:
        place = next((n for n, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), None)
        first = "" if place is None else f"; number {place} is {ours[place]!r} and {theirs[place]!r}"
        raise ValueError(
            f"the detector has {len(ours)} classes, the data {len(theirs)}{first}. Build the detector with "
            "class_names=data.class_names, or read the data with class_names=list(detector.class_names)"
        )


def _run(
    module: LitDetector,
    data: pl.LightningDataModule,
    options: TrainerOptions,
    folder: RunFolder,
    seed: int,
    resume: bool,
) -> WriteMetrics:
    """Put the Trainer together, run it, and say in our words how it ended."""
    if resume:
        _announce(folder)
    loggers = make_loggers(options, folder)
    metrics = WriteMetrics(folder, Logs(folder, loggers), options.log_every_n_steps)
    with StopRequest() as request:
        guard = StepGuard(folder, request)
        saving = SaveCheckpoints(folder, metrics, guard, options.checkpoint_every_n_steps)
        runner = make_trainer(
            options, folder, [RandomStates(seed), DataPosition(), metrics, guard, saving], loggers
        )
        try:
            runner.fit(module, datamodule=data, ckpt_path=folder.last if resume else None)
        except RunStopped:
            say(f"stopped and saved; continue with: boxmatch train --resume {folder.root}")
            raise KeyboardInterrupt from None
        except SystemExit:
            # The Trainer answers a second Ctrl-C with exit code 1.
            say(
                f"stopped at once; {folder.last} is the state to continue from"
                if folder.last.exists()
                else "stopped"
            )
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if runner.world_size > 1 and _is_lost_process(error):
                raise ProcessLostError(
                    f"rank {runner.global_rank} of {runner.world_size}: another process is gone after step "
                    f"{runner.global_step} ({str(error).splitlines()[0]}); its output says why. Continue "
                    f"with --resume {folder.root}"
                ) from error
            raise
    return metrics


def _is_lost_process(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(
        word in text for word in ("connection reset", "connection closed", "broken pipe", "nccl", "gloo")
    )


def _announce(folder: RunFolder) -> None:
    """Say where a resumed run goes on, and from which file.

    Raises:
        CheckpointError: no checkpoint can be read.
    """
    checkpoint, source, problem = read_newest(folder.last)
    if problem is not None:
        say(f"{problem}; using {source}")
    epoch, step = checkpoint.get("epoch"), checkpoint.get("global_step")
    if not isinstance(epoch, int) or not isinstance(step, int):
        raise CheckpointError(
            f"{source} holds weights but no state of a training; start a new run from it instead"
        )
    say(f"resuming {folder.root} after step {step}, in epoch {epoch + 1}")


def _draw(folder: RunFolder) -> None:
    """Curves of the run as pictures; a run that was never evaluated has none."""
    if not is_first_process() or not folder.epochs.exists():
        return
    from boxmatch.visualize import draw_curves, draw_pr_curves

    draw_curves(folder.root).savefig(folder.root / "curves.png")
    if folder.curves.exists():
        draw_pr_curves(folder.root).savefig(folder.root / "pr_curves.png")


def validate(
    detector: nn.Module,
    data: pl.LightningDataModule,
    *,
    split: str = "val",
    trainer: TrainerOptions | None = None,
    evaluation: EvaluationSettings | None = None,
    output: Path | str = ".",
) -> dict[str, Any]:
    """Measure a detector on one split; the same numbers as during training, also on several processes.

    Args:
        detector: as for `fit`, with the weights to measure.
        data: as for `fit`.
        split: "val" or "test".
        trainer: devices and precision.
        evaluation: backend and limits of the metric.
        output: folder for what the Trainer might write; nothing, as a rule.

    Raises:
        ValueError: no such split, or the detector has other classes than the data.
    """
    if split not in ("val", "test"):
        raise ValueError(f"split: expected val or test, got {split!r}")
    _check_classes(detector, data)
    options = trainer or TrainerOptions()
    module = LitDetector(
        detector, ema=EMAOptions("none"), evaluation=evaluation, channels_last=options.channels_last
    )
    with run_log(None):
        runner = make_trainer(options, RunFolder(output), [], [])
        loader = data.val_dataloader() if split == "val" else data.test_dataloader()
        runner.validate(module, dataloaders=loader, verbose=False)
    return module.result or {}
