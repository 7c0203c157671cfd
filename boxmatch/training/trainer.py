"""The Lightning Trainer for our options."""

import dataclasses
import os
import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from boxmatch.training.checkpoint_io import SafeCheckpointIO
from boxmatch.training.options import TrainerOptions
from boxmatch.training.progress import RunProgress
from boxmatch.training.run_folder import RunFolder

_OURS = ("checkpoint_every_n_steps", "channels_last", "progress", "tensorboard", "extra")


def make_trainer(
    options: TrainerOptions, folder: RunFolder, callbacks: list[pl.Callback], loggers: list[Logger]
) -> pl.Trainer:
    """A Trainer that writes nothing by itself.

    Raises:
        ValueError: an option does not go with this machine, or the Trainer does not know a name in `extra`.
    """
    arguments: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in _OURS
    }
    arguments |= _launched_processes(options)
    bar = options.progress and sys.stdout.isatty()
    arguments |= {
        "callbacks": callbacks + ([RunProgress()] if bar else []),
        "default_root_dir": folder.root,
        "enable_checkpointing": any(isinstance(each, Checkpoint) for each in callbacks),
        "enable_model_summary": False,
        "enable_progress_bar": bar,
        "logger": loggers or False,
        # A broken validation shows after the first epoch; trying it before would cost every run its time.
        "num_sanity_val_steps": 0,
        "plugins": [SafeCheckpointIO()],
    }
    try:
        trainer = pl.Trainer(**arguments, **options.extra)
    except TypeError as error:
        raise ValueError(
            f"trainer.extra: {error}; its names are those of lightning.pytorch.Trainer"
        ) from error
    if options.sync_batchnorm and trainer.strategy.root_device.type != "cuda":
        raise ValueError("trainer.sync_batchnorm: works on GPUs only, got the CPU; leave it out")
    return trainer


def _launched_processes(options: TrainerOptions) -> dict[str, int]:
    """Under torchrun the launcher has decided on processes and machines, and `auto` follows it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or options.devices != "auto":
        return {}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}


def make_loggers(options: TrainerOptions, folder: RunFolder) -> list[Logger]:
    """TensorBoard events below the run folder, where wanted."""
    if not options.tensorboard:
        return []
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(folder.root, name="", version="tensorboard")]
