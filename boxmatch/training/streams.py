"""Random streams and place in the data: kept in checkpoints, put back before the first resumed step."""

import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


def random_state() -> dict[str, Any]:
    """State of the global streams as tensors and plain values: a checkpoint of it needs no code to load."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"].cpu())
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class RandomStates(Callback):
    """Seeds each process with seed + rank, for dropout must differ; carries the streams over a resume.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loaded: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The streams of all processes; every one of them takes part in saving."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"ranks": [random_state()]}
        states: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, random_state())
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the streams until the first step."""
        self.loaded = state_dict["ranks"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the streams."""
        seed = self.seed + trainer.global_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the streams back before the first resumed step: making the loops may draw from them."""
        if self.loaded is not None and trainer.global_rank < len(self.loaded):
            set_random_state(self.loaded[trainer.global_rank])
        self.loaded = None


class DataPosition(Callback):
    """Carries the loader's place in the epoch over a resume.

    The Trainer does so itself, but not once its loader was asked for its length to lay out the schedule:
    by then the loader counts as set up, and the saved place is silently dropped (Lightning 2.6).
    """

    def __init__(self) -> None:
        self.loader: Any = None
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands; empty for loaders that do not know."""
        return dict(self.loader.state_dict()) if hasattr(self.loader, "state_dict") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the place until there is a loader."""
        self.loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the loader there, before it gives the first batch."""
        self.loader = trainer.train_dataloader
        if self.loaded and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(self.loaded)
        self.loaded = None
