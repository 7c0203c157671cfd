"""Stops a run at the step that goes wrong, or when someone asks for it, on all processes together."""

import math
import signal
import statistics
import threading
from collections import deque
from types import FrameType
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from boxmatch.errors import DivergedError
from boxmatch.models.detector import Detector
from boxmatch.training.lit import LitDetector
from boxmatch.training.run_folder import RunFolder
from boxmatch.training.run_log import say

# Norms remembered for the running median, and how far above it a norm is worth a warning.
_MEMORY, _EXPLOSION = 101, 100.0


class StopRequest:
    """Remembers Ctrl-C and SIGTERM until the step is done; the second signal interrupts at once.

    A context manager, so that the program gets its own handlers back.
    """

    def __init__(self) -> None:
        self.received = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.getsignal(number)
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        if _in_main_thread():
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take over both signals, also from the Trainer, which would leave without saving."""
        if _in_main_thread():
            for number in self.before:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        say("stopping after this step; press Ctrl-C again to stop at once")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class RunStopped(BaseException):
    """Leaves the Trainer after a saved step; `fit` turns it into KeyboardInterrupt."""


class StepGuard(Callback):
    """Checks loss terms and gradients before every optimiser step, and carries out a stop request after it.

    Args:
        folder: where the last good checkpoint lies.
        request: the signals.
    """

    def __init__(self, folder: RunFolder, request: StopRequest) -> None:
        self.folder, self.request = folder, request
        self.norms: deque[float] = deque(maxlen=_MEMORY)
        self.stop = False
        self.fault: str | None = None
        self.batch: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The Trainer has put its own signal handlers in place by now."""
        self.request.listen()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the pictures, to be able to name them."""
        self.batch = batch

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss terms; a fault waits for the optimiser step, where all processes meet."""
        module = cast(LitDetector, pl_module)
        bad = [name for name, value in module.read_terms().items() if not math.isfinite(value)]
        if bad and self.fault is None:
            what = f"the loss term {' and '.join(bad)} is not finite"
            self.fault = f"{what}{self._output(trainer, module)} ({self._where(trainer, module)})"

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Stop before a broken step.

        Raises:
            DivergedError: a loss term or gradient is not finite, here or on another process.
        """
        module = cast(LitDetector, pl_module)
        norm = module.gradient_norm = gradient_norm(module.detector)
        # With float16 an overflow is ordinary: the scaler leaves the step out and lowers the scale.
        if self.fault is None and trainer.precision != "16-mixed":
            self.fault = self._gradient_fault(trainer, module, float(norm))
        broken, self.stop = self._agree(trainer, self.fault is not None, self.request.received)
        if broken:
            raise DivergedError(self._advice(self.fault or "the loss is not finite on another process"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave; the last batch of an epoch is followed by the evaluation and saved after it."""
        if self.stop and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave after the epoch; a request that came during the evaluation counts too."""
        _, stop = self._agree(trainer, False, self.request.received)
        self.stop |= stop

    def leave_if_asked(self, trainer: pl.Trainer) -> None:
        """Called once the epoch is saved."""
        if self.stop:
            raise RunStopped

    def _leave(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder.last, weights_only=False)
        raise RunStopped

    def _gradient_fault(self, trainer: pl.Trainer, module: LitDetector, norm: float) -> str | None:
        if not math.isfinite(norm):
            name = next((n for n, p in module.detector.named_parameters() if not _finite(p.grad)), "the sum")
            return f"the gradient of {name} is not finite ({self._where(trainer, module)})"
        usual = statistics.median(self.norms) if len(self.norms) > 10 else norm
        if usual > 0 and norm > _EXPLOSION * usual:
            say(
                f"step {trainer.global_step + 1}: the gradient norm is {norm:.3g}, usually {usual:.3g}; if "
                "the loss rises, lower --optimizer.base_lr or set --trainer.gradient_clip_val"
            )
        self.norms.append(norm)
        return None

    def _output(self, trainer: pl.Trainer, module: LitDetector) -> str:
        """Which output of the network is not finite, of which level and picture; empty if all are finite."""
        if not isinstance(module.detector, Detector):
            return ""
        with trainer.precision_plugin.forward_context():
            broken = module.detector.broken_output(self.batch.images)
        if broken is None:
            return ""
        return f", nor is the {broken[0]} in picture {module.picture_names(self.batch)[broken[1]]}"

    def _where(self, trainer: pl.Trainer, module: LitDetector) -> str:
        terms = ", ".join(f"{name} {value:g}" for name, value in module.read_terms().items())
        rank = f" rank {trainer.global_rank}," if trainer.world_size > 1 else ""
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        return (
            f"{terms};{rank} epoch {trainer.current_epoch + 1}, step {trainer.global_step + 1}, "
            f"learning rate {rate:g}; pictures {', '.join(module.picture_names(self.batch))}"
        )

    def _advice(self, fault: str) -> str:
        kept = [path for path in (self.folder.last, self.folder.best) if path.is_file()]
        good = f"the last good state is {kept[0]}" if kept else "nothing had been saved yet"
        return (
            f"{fault}. Stopped before the step; {good}. Look at these pictures and boxes (boxmatch debug), "
            "lower --optimizer.base_lr, or set --trainer.gradient_clip_val 10"
        )

    def _agree(self, trainer: pl.Trainer, broken: bool, stop: bool) -> tuple[bool, bool]:
        """Both flags, true if true on any process: all of them leave at the same step."""
        if trainer.world_size == 1:
            return broken, stop
        flags = torch.tensor([broken, stop], dtype=torch.float32, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        return bool(flags[0]), bool(flags[1])


def gradient_norm(module: nn.Module) -> Tensor:
    """Euclidean norm over all gradients, before clipping."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def _finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(gradient).all())
