"""The progress bar of a run on a terminal; elsewhere the lines per epoch are enough."""

from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from boxmatch.training.lit import LitDetector


class RunProgress(TQDMProgressBar):
    """Loss, learning rate and last evaluation beside a bar that vanishes at the end of the epoch."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1, leave=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, *unused: Any) -> None:
        """Count epochs from 1, as the lines above the bar do."""
        super().on_train_epoch_start(trainer, *unused)
        whole = trainer.max_epochs or -1
        text = f"epoch {trainer.current_epoch + 1}{f'/{whole}' if whole > 0 else ''}"
        self.train_progress_bar.set_description(text)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        module = cast(LitDetector, pl_module)
        shown: dict[str, Any] = {"loss": f"{sum(module.read_terms().values()):.3f}"}
        shown["rate"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.1e}"
        if module.result is not None and module.result["map_50"] is not None:
            shown["mAP.50"] = f"{module.result['map_50']:.3f}"
        return shown
