"""Numbers and checkpoints of a run, written around its steps."""

import time
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from boxmatch.training.guard import StepGuard
from boxmatch.training.lit import LitDetector
from boxmatch.training.logs import Logs
from boxmatch.training.run_folder import RunFolder
from boxmatch.training.run_log import say


class WriteMetrics(Callback):
    """One row per epoch in metrics.csv and on the screen, metrics.json after each evaluation.

    Args:
        folder: the run.
        logs: where rows go.
        every_n_steps: optimiser steps between two rows of the step log.
        monitor: number of the evaluation that decides which epoch is best.
    """

    def __init__(
        self, folder: RunFolder, logs: Logs, every_n_steps: int = 10, monitor: str = "map_50"
    ) -> None:
        self.folder, self.logs, self.every_n_steps, self.monitor = folder, logs, every_n_steps, monitor
        self.last: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.improved = False
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.logged = 0
        self.started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Results so far and the sums of the epoch that runs."""
        return {"last": self.last, "best": self.best, "sums": self.sums, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.last, self.best = state_dict["last"], state_dict["best"]
        self.sums, self.steps = state_dict["sums"], state_dict["steps"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the rows that a resumed run is going to write again."""
        self.logged = trainer.global_step
        if trainer.is_global_zero:
            self.logs.cut(epoch=trainer.current_epoch, step=trainer.global_step + 1)
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the sums of an epoch; the last one is always evaluated."""
        self.started, self.sums, self.steps = time.perf_counter(), {}, 0
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the numbers of a batch; log them every few steps; have the last step evaluated."""
        if trainer.global_step == trainer.max_steps:
            # By itself the Trainer leaves within the epoch, without an evaluation.
            trainer.should_stop, trainer.check_val_every_n_epoch = True, 1
        columns = _columns(_ours(pl_module))
        self.steps += 1
        for name, value in columns.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        step = trainer.global_step
        if trainer.is_global_zero and step % self.every_n_steps == 0 and step != self.logged:
            self.logged = step
            row = {"step": step, "epoch": trainer.current_epoch, **columns}
            row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
            row["gradient_norm"] = float(_ours(pl_module).gradient_norm)
            self.logs.step(row)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the result; the first, and any that beats the best so far, becomes best."""
        result = _ours(pl_module).result
        if trainer.sanity_checking or result is None:
            return
        self.last = {"epoch": trainer.current_epoch, "step": trainer.global_step, **result}
        self.improved = self.best is None or (self.last[self.monitor] or 0) > (self.best[self.monitor] or 0)
        if self.best is None or self.improved:
            self.best = self.last
        if trainer.is_global_zero:
            self.folder.write_metrics(self.last, self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of the epoch, its numbers averaged over steps and processes."""
        names = list(self.sums)
        means = torch.tensor(
            [self.sums[name] / max(self.steps, 1) for name in names], device=pl_module.device
        )
        means = trainer.strategy.reduce(means, reduce_op="mean")
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= dict(zip(names, means.tolist(), strict=True))
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        if self.last is not None and self.last["epoch"] == trainer.current_epoch:
            row |= {key: value for key, value in self.last.items() if key.startswith(("map", "mar"))}
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        self.logs.epoch(row)
        say(epoch_line(row, trainer.max_epochs or 0))


def _ours(module: pl.LightningModule) -> LitDetector:
    """The module as what it is; the Trainer's hooks only know its base class."""
    return cast(LitDetector, module)


def _columns(module: LitDetector) -> dict[str, float]:
    """Columns `loss`, `loss_<term>`, and those of the detector's diagnostics."""
    terms = module.read_terms()
    losses = {f"loss_{name}": value for name, value in sorted(terms.items())}
    return {"loss": sum(terms.values()), **losses, **module.read_diagnostics()}


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch as a person reads it, counted from 1."""
    terms = " ".join(f"{key[5:]} {value:.3f}" for key, value in row.items() if key.startswith("loss_"))
    text = f"epoch {row['epoch'] + 1}{f'/{epochs}' if epochs > 0 else ''}  loss {row['loss']:.3f} ({terms})"
    text += f"  rate {row['learning_rate']:.2e}"
    for key, name in (("map_50", "mAP.50"), ("map", "mAP.50:.95")):
        if row.get(key) is not None:
            text += f"  {name} {row[key]:.3f}"
    return f"{text}  {row['seconds']:.1f} s"


class SaveCheckpoints(Checkpoint):
    """best.ckpt whenever an evaluation is the best yet; last.ckpt after every epoch and every n steps.

    They do not know of each other: last.ckpt is written whatever the evaluation says.

    Args:
        folder: the run.
        metrics: tells whether an evaluation was the best.
        guard: leaves the run after a save, if someone asked for it.
        every_n_steps: optimiser steps between two writes of last.ckpt within an epoch, 0 for none.
    """

    def __init__(
        self, folder: RunFolder, metrics: WriteMetrics, guard: StepGuard, every_n_steps: int = 0
    ) -> None:
        self.folder, self.metrics, self.guard, self.every_n_steps = folder, metrics, guard, every_n_steps
        self.saved_step = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch; not at its last batch, for a resume from there would miss the evaluation."""
        due = self.every_n_steps and trainer.global_step - self.saved_step >= self.every_n_steps
        if due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_last(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the steps from where the run starts."""
        self.saved_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch and its evaluation."""
        if self.metrics.improved:
            trainer.save_checkpoint(self.folder.best, weights_only=False)
            self._save_weights(trainer, _ours(pl_module), self.folder.best_weights)
            self.metrics.improved = False
        self._save_last(trainer)
        self.guard.leave_if_asked(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The weights of the last step on their own; a run that is never evaluated has no others."""
        self._save_weights(trainer, _ours(pl_module), self.folder.last_weights)

    def _save_last(self, trainer: pl.Trainer) -> None:
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder.last, weights_only=False)

    def _save_weights(self, trainer: pl.Trainer, module: LitDetector, path: Path) -> None:
        """The evaluated weights alone, for `predict` and for other people."""
        if trainer.is_global_zero and hasattr(module.evaluated, "architecture"):
            from boxmatch.checkpoints import save_detector

            save_detector(module.evaluated, path)
