"""Train a detector on a data set and leave a run folder behind."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from boxmatch.metrics import EvaluationSettings
from boxmatch.training.callbacks import SaveCheckpoints, WriteMetrics
from boxmatch.training.lit import LitDetector
from boxmatch.training.options import EMAOptions, OptimizerOptions, ScheduleOptions, TrainerOptions
from boxmatch.training.run_folder import RunFolder

__all__ = [
    "EMAOptions",
    "LitDetector",
    "OptimizerOptions",
    "RunResult",
    "ScheduleOptions",
    "TrainerOptions",
    "fit",
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
    output: Path | str,
    seed: int = 0,
    resume: Path | str | None = None,
) -> RunResult:
    """Train a detector, evaluate it after every epoch, keep the best and the last state."""
    pl.seed_everything(seed, verbose=False)
    options = trainer or TrainerOptions()
    folder = RunFolder(Path(output))
    folder.create()
    module = LitDetector(detector, optimizer=optimizer, schedule=schedule, ema=ema, settings=evaluation)
    metrics = WriteMetrics(folder)
    callbacks = [metrics, SaveCheckpoints(folder, metrics, options.checkpoint_every_n_steps)]
    runner = pl.Trainer(**trainer_arguments(options, folder, callbacks))
    checkpoint = None if resume is None else RunFolder(Path(resume)).last
    runner.fit(module, datamodule=data, ckpt_path=checkpoint)
    return RunResult(folder.root, metrics.last or {}, metrics.best or {}, module.evaluated)


def trainer_arguments(
    options: TrainerOptions, folder: RunFolder, callbacks: list[pl.Callback]
) -> dict[str, Any]:
    """Keyword arguments of lightning.Trainer for these options."""
    own = {"checkpoint_every_n_steps", "channels_last", "progress", "tensorboard", "extra"}
    arguments = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in own}
    arguments |= {
        "callbacks": callbacks,
        "default_root_dir": folder.root,
        "enable_progress_bar": options.progress,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "logger": False,
    }
    torch.backends.cudnn.benchmark = False
    return arguments | dict(options.extra)
