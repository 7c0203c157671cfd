"""The LightningModule: one training step, one evaluation, the optimiser and the average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from boxmatch.metrics import EvaluationSettings, MeanPrecision
from boxmatch.training.ema import average_of, decay_at, update_average
from boxmatch.training.options import EMAOptions, OptimizerOptions, ScheduleOptions
from boxmatch.training.schedules import StepSchedule


class LitDetector(pl.LightningModule):
    """Trains a detector whose `losses(images, targets)` is a dict of weighted terms.

    Args:
        detector: the network that is trained.
        optimizer: optimiser and learning rate.
        schedule: course of the learning rate.
        ema: average of the weights; where there is one, it is what gets evaluated.
        settings: backend of the evaluation; thresholds are filled in from the detector.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        optimizer: OptimizerOptions | None = None,
        schedule: ScheduleOptions | None = None,
        ema: EMAOptions | None = None,
        settings: EvaluationSettings | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.options = optimizer or OptimizerOptions()
        self.schedule = schedule or ScheduleOptions()
        self.ema = ema or EMAOptions()
        # A sub-module, so that checkpoints, devices and memory formats treat it like the live weights.
        self.average: nn.Module | None = None if self.ema.kind == "none" else average_of(detector)
        self.metric = MeanPrecision(detector.class_names, settings)
        self.last_terms: dict[str, Tensor] = {}
        self.result: dict[str, Any] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The detector that is evaluated and kept: the average where there is one."""
        return self.detector if self.average is None else self.average

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Sum of the loss terms; the terms stay in `last_terms` for the callbacks."""
        terms = self.detector.losses(batch.images, batch.targets)
        self.last_terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser over the live weights and a schedule that moves it at every step."""
        rate, rule = self._peak_rate()
        optimizer = make_optimizer(self.detector, self.options, rate)
        total = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs or 1
        warmup = self.schedule.warmup_epochs * total / max(epochs, 1)
        rank_zero_info(
            f"learning rate {rate:g} = {rule}; {self.schedule.name} over {total} steps, {warmup:g} of warm-up"
        )
        schedule = StepSchedule(optimizer, self.schedule, total, warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _peak_rate(self) -> tuple[float, str]:
        """Peak learning rate for this number of processes, and how it came about."""
        options, processes = self.options, self.trainer.world_size
        factor = 1.0 if options.name == "sgd" else 0.1
        if options.reference_batch_size is None:
            rate = options.base_lr * factor * processes
            return rate, f"{options.base_lr:g} × {factor:g} ({options.name}) × {processes} process(es)"
        per_process = getattr(self.trainer.datamodule, "batch_size", None) or 1
        samples = per_process * self.trainer.accumulate_grad_batches * processes
        rate = options.base_lr * factor * samples / options.reference_batch_size
        return rate, (
            f"{options.base_lr:g} × {factor:g} ({options.name}) × {samples} pictures per step / "
            f"{options.reference_batch_size}"
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the weights, then let the average follow."""
        step = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            total = int(self.trainer.estimated_stepping_batches)
            update_average(self.average, self.detector, decay_at(self.ema, step, total))

    def on_validation_epoch_start(self) -> None:
        """Start from an empty metric and from the same statistics on every process."""
        self.metric.reset()
        if self.trainer.world_size > 1:
            # Batch norm statistics drift apart between processes; rank 0's are the ones that get saved.
            for buffer in self.evaluated.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Detections of a batch in file pixels, next to the annotations."""
        found = batch.restore(self.evaluated.predict(batch.images))
        self.metric.update(batch.image_id, found, self.trainer.datamodule.ground_truths(batch))

    def on_validation_epoch_end(self) -> None:
        """Evaluate over all processes; the numbers go to the logs, the whole result to `result`."""
        result = self.metric.compute()
        self.metric.reset()
        self.result = result
        for name in ("map", "map_50", "map_75"):
            value = result[name]
            self.log(
                f"val/{name}",
                math.nan if value is None else value,
                prog_bar=name != "map_75",
                rank_zero_only=False,
            )


def make_optimizer(module: nn.Module, options: OptimizerOptions, rate: float) -> Optimizer:
    """The optimiser over all weights that take a gradient.

    Raises:
        ValueError: no weight takes a gradient.
    """
    weights = [p for p in module.parameters() if p.requires_grad]
    if not weights:
        raise ValueError("expected weights to train, got a detector with all of them frozen; unfreeze some")
    decay = options.weight_decay
    if decay is None:
        # sgd: the reference's value; adamw: PyTorch's default; adam: none, as in the reference.
        decay = {"sgd": 1e-4, "adamw": 0.01, "adam": 0.0}[options.name]
    groups = _groups(weights, decay, options.decay_norm_and_bias)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov)
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(options.momentum, 0.999))


def _groups(weights: Iterable[Tensor], decay: float, decay_vectors: bool) -> list[dict[str, Any]]:
    """Weights that decay and, if vectors are spared, those that do not."""
    weights = list(weights)
    if decay_vectors or decay == 0:
        return [{"params": weights, "weight_decay": decay}]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
