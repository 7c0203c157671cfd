"""Which pictures make up which batch: a function of seed and epoch, the same after a resume."""

from collections.abc import Iterator

import numpy as np
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from boxmatch.data.dataset import BatchKey
from boxmatch.data.geometry import Size

# Second words of the seeds, so that order, sizes and samples draw from different streams.
ORDER, SIZES = 0x0D, 0x51
SIZE_STEP = 32  # the coarsest stride of the detectors


def _processes(rank: int | None, world: int | None) -> tuple[int, int]:
    distributed = dist.is_available() and dist.is_initialized()
    rank = rank if rank is not None else dist.get_rank() if distributed else 0
    world = world if world is not None else dist.get_world_size() if distributed else 1
    return rank, world


class TrainSampler(DistributedSampler[BatchKey]):
    """Batches of the training pictures in random order; every process gets the same number of them.

    It is a `DistributedSampler` so that the Trainer leaves it in place and tells it the epoch.

    Args:
        count: pictures in the data set.
        batch_size: pictures per batch and process.
        image_size: width and height of the batches.
        seed: start of the random streams.
        multi_scale: smallest and largest longer side, drawn in steps of 32 px; None for `image_size` always.
        multi_scale_interval: batches between two changes of the size.
        drop_last: leave out the pictures that fill no batch on every process; a set too small for one batch still gives
            one. Otherwise the last batch is filled up from the beginning of the order.
        rank: number of this process; asked of torch.distributed when None.
        world: number of processes; likewise.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        image_size: Size,
        seed: int = 0,
        multi_scale: tuple[int, int] | None = None,
        multi_scale_interval: int = 1,
        drop_last: bool = True,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        rank, world = _processes(rank, world)
        super().__init__(range(count), num_replicas=world, rank=rank, seed=seed, drop_last=drop_last)
        self.count, self.batch_size = count, batch_size
        self.image_size = image_size
        self.multi_scale, self.multi_scale_interval = multi_scale, multi_scale_interval
        self.start_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; a start in the middle holds only for the epoch it was given for."""
        if epoch != self.epoch:
            self.start_batch = 0
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch and process, those before `start_batch` included."""
        step = self.batch_size * self.num_replicas
        return max(1, self.count // step) if self.drop_last else -(-self.count // step)

    def __iter__(self) -> Iterator[BatchKey]:
        order = np.random.default_rng([self.seed, self.epoch, ORDER]).permutation(self.count)
        sizes = self.sizes()
        step = self.batch_size * self.num_replicas
        start, self.start_batch = self.start_batch, 0
        for number in range(start, len(self)):
            rows = np.arange(number * step, (number + 1) * step)[self.rank :: self.num_replicas]
            yield BatchKey(self.epoch, tuple(order[rows % self.count].tolist()), sizes[number])

    def sizes(self) -> list[Size]:
        """Width and height of each batch of the epoch, the same on all processes."""
        if self.multi_scale is None:
            return [self.image_size] * len(self)
        low, high = (side // SIZE_STEP for side in self.multi_scale)
        draws = -(-len(self) // self.multi_scale_interval)
        random = np.random.default_rng([self.seed, self.epoch, SIZES])
        sides = (
            random.integers(low, high + 1, draws).repeat(self.multi_scale_interval)[: len(self)] * SIZE_STEP
        )
        return [with_longer_side(self.image_size, side) for side in sides.tolist()]


def with_longer_side(size: Size, side: int) -> Size:
    """About the same proportions with another longer side; the shorter one is a multiple of 32 px."""
    longer = max(size)
    width, height = (max(SIZE_STEP, round(length * side / longer / SIZE_STEP) * SIZE_STEP) for length in size)
    return width, height


class EvaluationSampler(DistributedSampler[BatchKey]):
    """Every picture once, in order; with several processes each takes its share, and no picture comes twice.

    Args:
        count: pictures in the data set.
        batch_size: pictures per batch, at most.
        rank: number of this process; asked of torch.distributed when None.
        world: number of processes; likewise.
    """

    def __init__(
        self, count: int, batch_size: int, *, rank: int | None = None, world: int | None = None
    ) -> None:
        rank, world = _processes(rank, world)
        super().__init__(range(count), num_replicas=world, rank=rank, shuffle=False)
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-len(range(self.rank, self.count, self.num_replicas)) // self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        mine = range(self.rank, self.count, self.num_replicas)
        for start in range(0, len(mine), self.batch_size):
            yield BatchKey(0, tuple(mine[start : start + self.batch_size]))
