"""The LightningModule: one training step, one evaluation, and the average of the weights that follows."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import Tensor

from boxmatch.data.annotations import Annotations
from boxmatch.data.batch import Batch
from boxmatch.errors import NotFiniteError
from boxmatch.metrics import EvaluationSettings, MeanPrecision, ground_truths
from boxmatch.structures import Detections
from boxmatch.training.ema import average_of, decay_at, matched_entries, update_average
from boxmatch.training.optimizers import make_optimizer, peak_rate, rate_warning
from boxmatch.training.options import EMAOptions, OptimizerOptions, ScheduleOptions
from boxmatch.training.record import check_record
from boxmatch.training.run_log import say
from boxmatch.training.schedules import StepSchedule


class LitDetector(pl.LightningModule):
    """Trains a detector whose `losses(images, targets)` is a dict of weighted terms.

    Args:
        detector: the network that is trained; any module with `losses`, `predict` and `class_names`, as
            `Detector` has them.
        optimizer: optimiser and learning rate.
        schedule: course of the learning rate.
        ema: average of the weights; where there is one, it is what gets evaluated.
        evaluation: backend and limits; its thresholds are read from the detector.
        channels_last: hand the pictures over in channels-last memory order.
        record: what a resumed run must have in common with this one, as plain values; travels in checkpoints.
    """

    def __init__(
        self,
        detector: Any,
        *,
        optimizer: OptimizerOptions | None = None,
        schedule: ScheduleOptions | None = None,
        ema: EMAOptions | None = None,
        evaluation: EvaluationSettings | None = None,
        channels_last: bool = False,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.options = optimizer or OptimizerOptions()
        self.schedule = schedule or ScheduleOptions()
        self.ema = ema or EMAOptions()
        # A sub-module, so that checkpoints, devices and memory formats treat it like the live weights.
        self.average: Any = None if self.ema.kind == "none" else average_of(detector)
        self.metric = MeanPrecision(detector.class_names, _with_thresholds(evaluation, detector))
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.record = dict(record or {})
        self.total_steps = 0
        self.said: tuple[list[str], list[str], Tensor] | None = None
        self.values: tuple[dict[str, float], dict[str, float]] | None = None
        self.gradient_norm = torch.full((), math.nan)
        self.result: dict[str, Any] | None = None

    @property
    def evaluated(self) -> Any:
        """The detector that is evaluated and kept: the average where there is one."""
        return self.detector if self.average is None else self.average

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Copy while the device still computes; the batch knows which of its parts belong there."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Sum of the loss terms; they are kept for the log, and so are the detector's `diagnostics`."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        try:
            terms = self.detector.losses(images, batch.targets)
            diagnostics = dict(getattr(self.detector, "diagnostics", {}))
        except NotFiniteError:
            # The guard stops all processes together before the step; an error here would leave them waiting.
            weights = [p.sum() for p in self.detector.parameters() if p.requires_grad]
            terms, diagnostics = {"assignment": torch.stack(weights).sum() * math.nan}, {}
        stacked = torch.stack(list(terms.values()))
        numbers = torch.stack([*stacked.detach().unbind(), *diagnostics.values()])
        self.said, self.values = (list(terms), list(diagnostics), numbers), None
        return stacked.sum()

    def read_terms(self) -> dict[str, float]:
        """Loss terms of the last step as numbers; the first call of a step waits for the device."""
        return self._read()[0]

    def read_diagnostics(self) -> dict[str, float]:
        """What the detector says about its last step beside the loss terms; empty for most."""
        return self._read()[1]

    def _read(self) -> tuple[dict[str, float], dict[str, float]]:
        if self.values is None:
            terms, diagnostics, numbers = self.said or ([], [], torch.zeros(0))
            values = numbers.tolist()
            self.values = (
                dict(zip(terms, values[: len(terms)], strict=True)),
                dict(zip(diagnostics, values[len(terms) :], strict=True)),
            )
        return self.values

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser over the live weights and a schedule that moves it at every step."""
        trainer = self.trainer
        total = self.total_steps = int(trainer.estimated_stepping_batches)
        batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", 1)
        pictures = batch_size * trainer.accumulate_grad_batches * trainer.world_size
        rate, rule = peak_rate(self.options, trainer.world_size, pictures)
        warmup: float
        if self.schedule.warmup_steps is None:
            trainer.fit_loop.setup_data()  # a run without max_epochs has not asked for its length
            batches = trainer.num_training_batches / trainer.accumulate_grad_batches
            warmup = self.schedule.warmup_epochs * math.ceil(batches)
        else:
            warmup = self.schedule.warmup_steps
        say(
            f"learning rate {rate:g} = {rule}; {self.schedule.name} over {total} steps of {pictures} "
            f"pictures, {min(round(warmup), total)} of them warm-up"
        )
        warning = rate_warning(self.options, rate, pictures)
        if warning:
            say(warning)
        optimizer = make_optimizer(self.detector, self.options, rate)
        schedule = StepSchedule(optimizer, self.schedule, total, warmup)
        each_step: LRSchedulerConfigType = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": each_step}

    def on_fit_start(self) -> None:
        """Train also what was loaded for evaluation: the Trainer leaves modules in the mode it finds."""
        self.detector.train()

    def on_train_start(self) -> None:
        """Pair the weights with their averages, once they are where they stay."""
        if self.average is not None:
            self.entries = matched_entries(self.average, self.detector)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the weights, then let the average follow."""
        step = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            update_average(self.entries, decay_at(self.ema, step, self.total_steps))

    def on_validation_epoch_start(self) -> None:
        """Start from an empty metric and from the same statistics on every process."""
        self.metric.reset()
        if self.trainer.world_size > 1:
            # Batch norm statistics drift apart between processes; rank 0's are the ones that get saved.
            for buffer in self.evaluated.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Detections of a batch in the file's own pixels, next to its annotations."""
        images = batch.images.contiguous(memory_format=self.memory_format)
        found = self.evaluated.predict(images, sizes=batch.picture_sizes)
        restored = [
            Detections(batch.restore_boxes(one.boxes, number), one.scores, one.labels)
            for number, one in enumerate(found)
        ]
        indices = batch.index.tolist()
        self.metric.update(
            indices, restored, ground_truths(_annotations(self.trainer.val_dataloaders), indices)
        )

    def on_validation_epoch_end(self) -> None:
        """Evaluate over all processes and leave the numbers in `result`."""
        self.result = self.metric.compute()
        self.metric.reset()

    def picture_names(self, batch: Batch) -> list[str]:
        """File names of a training batch (of the first picture, for a mosaic)."""
        annotations = _annotations(self.trainer.train_dataloader)
        return [annotations.name(index) for index in batch.index.tolist()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the record beside the weights."""
        checkpoint["boxmatch"] = {**self.record, "class_names": list(self.detector.class_names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the records before any weight is loaded.

        Raises:
            CheckpointError: classes, data or network differ.
        """
        check_record(
            checkpoint.get("boxmatch"), {**self.record, "class_names": list(self.detector.class_names)}
        )


def _annotations(loader: Any) -> Annotations:
    """What the pictures of a loader show, according to their files."""
    return loader.dataset.annotations


def _with_thresholds(settings: EvaluationSettings | None, detector: Any) -> EvaluationSettings:
    """The settings with what the detector's post-processing does, where it says so."""
    settings = settings or EvaluationSettings()
    postprocess = getattr(detector, "postprocess", None)
    return replace(
        settings,
        score_threshold=getattr(postprocess, "score_threshold", settings.score_threshold),
        nms_iou=getattr(postprocess, "nms_iou", settings.nms_iou),
    )
