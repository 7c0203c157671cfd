"""What happens around the steps: numbers written, checkpoints saved."""

import math
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint

from boxmatch.training.lit import LitDetector
from boxmatch.training.run_folder import RunFolder, append_row


class WriteMetrics(Callback):
    """One row per epoch in metrics.csv, and metrics.json after each evaluation.

    Args:
        folder: the run.
        monitor: key of the evaluation that decides which epoch is best.
    """

    def __init__(self, folder: RunFolder, monitor: str = "map_50") -> None:
        self.folder, self.monitor = folder, monitor
        self.last: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.improved = False
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Results so far and the sums of the epoch that runs."""
        return {"last": self.last, "best": self.best, "sums": self.sums, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.last, self.best = state_dict["last"], state_dict["best"]
        self.sums, self.steps = state_dict["sums"], state_dict["steps"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the sums of an epoch."""
        self.started, self.sums, self.steps = time.perf_counter(), {}, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss terms of a step."""
        assert isinstance(pl_module, LitDetector)
        self.steps += 1
        for name, value in pl_module.last_terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the result; the first, and any that beats the best so far, becomes best."""
        assert isinstance(pl_module, LitDetector)
        if trainer.sanity_checking or pl_module.result is None:
            return
        self.last = {"epoch": trainer.current_epoch, "step": trainer.global_step, **pl_module.result}
        self.improved = self.best is None or (self.last[self.monitor] or 0) > (self.best[self.monitor] or 0)
        if self.improved:
            self.best = self.last
        if trainer.is_global_zero and self.best is not None:
            self.folder.write_metrics(self.last, self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of the epoch."""
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {f"loss_{name}": total / max(self.steps, 1) for name, total in self.sums.items()}
        row["loss"] = sum(self.sums.values()) / max(self.steps, 1)
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        if self.last is not None and self.last["epoch"] == trainer.current_epoch:
            row |= {k: v for k, v in self.last.items() if k.startswith(("map", "mar"))}
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        row = {k: "" if v is None or (isinstance(v, float) and math.isnan(v)) else v for k, v in row.items()}
        append_row(self.folder.epochs, row)


class SaveCheckpoints(Checkpoint):
    """best.ckpt whenever an evaluation is the best so far, last.ckpt at the end of every epoch and every n steps.

    Args:
        folder: the run.
        metrics: tells whether an evaluation was the best.
        every_n_steps: optimiser steps between two writes of last.ckpt within an epoch, 0 for none.
    """

    def __init__(self, folder: RunFolder, metrics: WriteMetrics, every_n_steps: int = 0) -> None:
        self.folder, self.metrics, self.every_n_steps = folder, metrics, every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(self.folder.last)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch and its evaluation."""
        if self.metrics.improved:
            trainer.save_checkpoint(self.folder.best)
            self.metrics.improved = False
        trainer.save_checkpoint(self.folder.last)
