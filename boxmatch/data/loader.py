"""A DataLoader that can be stopped after any batch and continued there, in a new process, without reading anything twice."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from boxmatch.data.batch import Batch
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.sampler import EvaluationSampler, TrainSampler


class StatefulLoader(DataLoader[Batch]):
    """Batches of a sampler; `state_dict` says which comes next. The Lightning Trainer finds and saves it.

    Args:
        dataset: makes the batches.
        sampler: chooses them.
        workers: processes that read ahead, 0 for none.
        seed: of the loader's own generator, so that starting it draws nothing from the global stream.
        progress: says how many batches of the epoch were used, where someone reads ahead; None where nobody does.
        pin_memory: lay batches in page-locked memory.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        sampler: TrainSampler | EvaluationSampler,
        *,
        workers: int = 0,
        seed: int = 0,
        progress: Callable[[], int | None] | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )
        self._progress = progress
        self._given = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._given = getattr(self.sampler, "start_batch", 0)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of the next batch."""
        used = self._progress() if self._progress else None
        used = self._given if used is None else used
        return {"epoch": self.sampler.epoch, "batch": used % max(1, len(self))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, at the next iteration."""
        self.sampler.epoch = state["epoch"]
        self.sampler.start_batch = state["batch"]
