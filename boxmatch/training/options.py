"""The settings of a training run: optimiser, schedule, average of the weights, Trainer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


def _expect(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class OptimizerOptions:
    """Which optimiser steps the weights, and how far.

    Args:
        name: adam, adamw or sgd.
        base_lr: learning rate before scaling; the peak is base_lr × processes, × 0.1 for adam and adamw.
        momentum: momentum of sgd, beta1 of adam and adamw (a schedule that cycles momentum overrides it).
        weight_decay: decay per step; None means 1e-4 for sgd, 0.01 for adamw, 0 for adam.
        decay_norm_and_bias: decay also vectors (norm scales, biases); False spares them.
        no_decay: further weights to spare: "norm", all of the normalisation layers; "bias", those with bias
            in their name.
        bias_rate: rate of the weights with bias in their name, as a multiple; 2 in the maskrcnn-benchmark
            family (ATSS, PAA).
        nesterov: look-ahead momentum of sgd.
        reference_batch_size: None keeps the rule above; with a number the rate follows the pictures per step
            (base_lr × batch size × accumulation × processes / this) instead of the processes.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    base_lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float | None = None
    decay_norm_and_bias: bool = True
    no_decay: tuple[Literal["norm", "bias"], ...] = ()
    bias_rate: float = 1.0
    nesterov: bool = False
    reference_batch_size: int | None = None

    def __post_init__(self) -> None:
        _expect(self.name in ("adam", "adamw", "sgd"), "optimizer.name", "adam, adamw or sgd", self.name)
        _expect(self.base_lr > 0, "optimizer.base_lr", "a number above 0", self.base_lr)
        _expect(0 <= self.momentum < 1, "optimizer.momentum", "a number in [0, 1)", self.momentum)
        _expect((self.weight_decay or 0) >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)
        spared = set(self.no_decay) <= {"norm", "bias"}
        _expect(spared, "optimizer.no_decay", "norm, bias or both", self.no_decay)
        _expect(self.bias_rate > 0, "optimizer.bias_rate", "a number above 0", self.bias_rate)
        reference = self.reference_batch_size
        _expect(reference is None or reference > 0, "optimizer.reference_batch_size", "1 or more", reference)


@dataclass(frozen=True)
class ScheduleOptions:
    """How the learning rate moves over the run; every optimiser step has its own rate.

    Args:
        name: one_cycle (cosine up, cosine down), cosine, step or linear.
        warmup: how all but one_cycle begin: linear rises from `start_fraction` to the peak, constant stays at
            `start_fraction` and then jumps to it.
        warmup_epochs: epochs of rising rate; as long as the run or longer means the rate only rises.
        warmup_steps: length of the warm-up in optimiser steps, in place of `warmup_epochs`.
        start_fraction: rate of the first step as a part of the peak (PyTorch's one-cycle: 1 / 25).
        final_fraction: rate of the last step as a part of the peak (PyTorch's one-cycle: 1 / 25e4).
        cycle_momentum: momentum (beta1 of adam) runs max → min → max against the rate, one_cycle only.
        max_momentum: momentum where the rate is lowest.
        min_momentum: momentum where the rate is highest.
        milestones: parts of the run (below 1) or optimiser steps (above 1) after which the rate is multiplied
            by `gamma`; step only, which ignores `final_fraction`.
        gamma: factor at each milestone, step only.
    """

    name: Literal["one_cycle", "cosine", "step", "linear"] = "one_cycle"
    warmup: Literal["linear", "constant"] = "linear"
    warmup_epochs: float = 3.0
    warmup_steps: int | None = None
    start_fraction: float = 1 / 25
    final_fraction: float = 1 / 25e4
    cycle_momentum: bool = True
    max_momentum: float = 0.95
    min_momentum: float = 0.85
    milestones: tuple[float, ...] = (0.7, 0.9)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        names = ("one_cycle", "cosine", "step", "linear")
        _expect(self.name in names, "schedule.name", "one_cycle, cosine, step or linear", self.name)
        _expect(self.warmup_epochs >= 0, "schedule.warmup_epochs", "0 or more", self.warmup_epochs)
        _expect(self.warmup in ("linear", "constant"), "schedule.warmup", "linear or constant", self.warmup)
        _expect(
            self.warmup == "linear" or self.name != "one_cycle",
            "schedule.warmup",
            "linear for one_cycle, which rises by a cosine",
            self.warmup,
        )
        steps = self.warmup_steps
        _expect(steps is None or steps >= 0, "schedule.warmup_steps", "0 or more, or None", steps)
        _expect(
            0 < self.start_fraction <= 1, "schedule.start_fraction", "a number in (0, 1]", self.start_fraction
        )
        _expect(
            0 <= self.final_fraction <= 1,
            "schedule.final_fraction",
            "a number in [0, 1]",
            self.final_fraction,
        )
        momenta = (self.min_momentum, self.max_momentum)
        _expect(0 <= momenta[0] <= momenta[1] < 1, "schedule momenta", "0 <= min <= max < 1", momenta)
        _expect(
            all(0 < m < 1 or (m > 1 and m == int(m)) for m in self.milestones),
            "schedule.milestones",
            "parts in (0, 1), or whole steps above 1",
            self.milestones,
        )
        _expect(self.gamma > 0, "schedule.gamma", "a number above 0", self.gamma)


@dataclass(frozen=True)
class EMAOptions:
    """The running average of the weights, which is what gets validated and saved as best.

    Args:
        kind: none; linear_ramp (decay of step k is k / total steps, the reference's rule); constant.
        decay: decay of constant once warmed up.
        warmup_steps: constant only; the decay of step k is × (1 − exp(−(k + 1) / warmup_steps)), 0 for none.
    """

    kind: Literal["none", "linear_ramp", "constant"] = "linear_ramp"
    decay: float = 0.9998
    warmup_steps: int = 2000

    def __post_init__(self) -> None:
        _expect(
            self.kind in ("none", "linear_ramp", "constant"),
            "ema.kind",
            "none, linear_ramp or constant",
            self.kind,
        )
        _expect(0 <= self.decay < 1, "ema.decay", "a number in [0, 1)", self.decay)
        _expect(self.warmup_steps >= 0, "ema.warmup_steps", "0 or more", self.warmup_steps)


@dataclass(frozen=True)
class TrainerOptions:
    """Where and how long to train; anything else of lightning.Trainer goes into `extra`.

    Args:
        max_epochs: epochs to train; -1 leaves it to max_steps.
        max_steps: optimiser steps after which to evaluate and stop; -1 leaves it to max_epochs.
        accelerator: auto, cpu or gpu.
        devices: processes on this machine: auto, a number, or a list of device numbers.
        num_nodes: machines.
        strategy: auto or ddp (others of Lightning are handed on).
        precision: 32, bf16-mixed or 16-mixed.
        accumulate_grad_batches: batches whose gradients are added up for one step.
        gradient_clip_val: largest gradient norm (or value); None does not clip.
        gradient_clip_algorithm: norm or value.
        sync_batchnorm: batch norm over all processes; GPUs only.
        channels_last: weights and pictures in channels-last memory order.
        check_val_every_n_epoch: epochs between two evaluations; the last epoch is always evaluated.
        log_every_n_steps: steps between two rows in the logs.
        checkpoint_every_n_steps: steps between two writes of last.ckpt within an epoch; 0 for its end only.
        limit_train_batches: batches (int) or part (float) of each training epoch; None takes all.
        limit_val_batches: batches (int) or part (float) of each evaluation; None takes all.
        deterministic: ask PyTorch for deterministic kernels (on the CPU they always are).
        progress: show a progress bar (a line per epoch where the output is not a terminal).
        tensorboard: write TensorBoard events beside the CSV logs.
        extra: further keyword arguments of lightning.Trainer.
    """

    max_epochs: int = 60
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32", 32, "bf16-mixed", "16-mixed"] = "32"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    sync_batchnorm: bool = False
    channels_last: bool = False
    check_val_every_n_epoch: int = 1
    log_every_n_steps: int = 10
    checkpoint_every_n_steps: int = 0
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    deterministic: bool = False
    progress: bool = True
    tensorboard: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(
            self.max_epochs >= 1 or (self.max_epochs == -1 and self.max_steps >= 1),
            "trainer.max_epochs",
            "1 or more, or -1 with trainer.max_steps",
            self.max_epochs,
        )
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps", "num_nodes"):
            _expect(getattr(self, name) >= 1, f"trainer.{name}", "1 or more", getattr(self, name))
        _expect(self.checkpoint_every_n_steps >= 0, "trainer.checkpoint_every_n_steps", "0 or more", self)
