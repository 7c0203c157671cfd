"""A DataLoader that can stop after any batch and go on there, in a new process, reading nothing twice."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from boxmatch.data.batch import Batch
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.sampler import EpochSampler

DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


class StatefulLoader(DataLoader[Batch]):
    """Batches of a sampler; `state_dict` says which comes next. The Lightning Trainer finds and saves it.

    Args:
        dataset: makes the batches.
        sampler: chooses them.
        workers: processes that read ahead, 0 for none.
        seed: of the loader's own generator, so that starting it draws nothing from the global stream.
        progress: says how many batches of the epoch were used, where the user of the loader reads ahead;
            None, or an answer of None, means that the batches given out were used.
        pin_memory: lay batches in page-locked memory.

    Raises:
        RuntimeError: while iterating, a worker process has died; the text names the file that it opened last.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        sampler: EpochSampler,
        *,
        workers: int = 0,
        seed: int = 0,
        progress: Callable[[], int | None] | None = None,
        pin_memory: bool = False,
    ) -> None:
        if workers and isinstance(dataset, DetectionDataset):
            dataset.pictures.opened = torch.full((workers, 2), -1).share_memory_()
        super().__init__(
            dataset,
            batch_size=None,  # the sampler says whole batches, and the data set makes them
            sampler=sampler,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )
        self.batches = sampler
        self.progress = progress
        self._given = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._given = self.batches.start_batch
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                raise self._explained(error) from error
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of the next batch."""
        used = self.progress() if self.progress else None
        used = self._given if used is None else used
        finished, batch = divmod(used, max(1, len(self)))
        return {"epoch": self.batches.epoch + finished, "batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, at the next iteration."""
        self.batches.epoch, self.batches.start_batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; the Trainer does so by itself."""
        self.batches.set_epoch(epoch)

    def _explained(self, error: RuntimeError) -> RuntimeError:
        """The error of a dead worker with the file that it had opened; any other error as it is."""
        found = DEAD_WORKER.search(str(error))
        if found is None or not isinstance(self.dataset, DetectionDataset):
            return error
        dead = {int(number) for number in re.findall(r"\d+", found.group(1))}
        last = self.dataset.pictures.last_opened(dead)
        if not last:
            return error
        return RuntimeError(
            f"{'; '.join(last)}. The likely cause is lack of memory: use fewer workers or a smaller cache. "
            f"PyTorch says: {error}"
        )
