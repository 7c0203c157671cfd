"""Which pictures make up which batch: a function of seed and epoch, the same after a resume."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch.distributed as dist
from jaxtyping import Int64
from torch.utils.data import Dataset, DistributedSampler

from boxmatch.data.dataset import BatchKey
from boxmatch.data.geometry import SIZE_STEP, Size

# Last words of the seeds, so that order and sizes draw from streams of their own. Samples use their index
# there, and these are no index of a data set.
ORDER, SIZES = 2**63, 2**63 + 1


class EpochSampler(DistributedSampler[BatchKey]):
    """The batches of an epoch for one process, from any batch on.

    It is a `DistributedSampler` so that the Trainer leaves it in place and tells it the epoch.

    Args:
        count: pictures in the data set.
        batch_size: pictures per batch and process.
        seed: start of the random streams.
        rank: number of this process; asked of torch.distributed when None.
        world: number of processes; likewise.

    Raises:
        ValueError: no pictures, or a batch size below 1.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int = 0, rank: int | None = None, world: int | None = None
    ) -> None:
        if count < 1:
            raise ValueError("the data set has no pictures; check the split's name and its annotations")
        if batch_size < 1:
            raise ValueError(f"expected a batch size of 1 or more, got {batch_size}")
        distributed = dist.is_available() and dist.is_initialized()
        rank = rank if rank is not None else dist.get_rank() if distributed else 0
        world = world if world is not None else dist.get_world_size() if distributed else 1
        sized = cast(Dataset[None], range(count))  # DistributedSampler asks for nothing but the length
        super().__init__(sized, num_replicas=world, rank=rank, seed=seed)
        self.count, self.batch_size, self.rank, self.world = count, batch_size, rank, world
        self.start_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a start in its middle holds only for the epoch that it was set for."""
        if epoch != self.epoch:
            self.start_batch = 0
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchKey]:
        start, self.start_batch = self.start_batch, 0
        yield from self.from_batch(start)

    @abstractmethod
    def from_batch(self, start: int) -> Iterator[BatchKey]:
        """The batches of the epoch from number `start` on."""


class TrainSampler(EpochSampler):
    """Training pictures in random order; every process gets the same number of batches, all of one size.

    With groups each batch, over all processes, holds pictures of one group, and the batches of all groups
    come in random order; each group is cut into batches like a set of its own.

    Args:
        image_size: width and height of the batches.
        multi_scale: smallest and largest longer side, drawn in steps of 32 px; None for `image_size` always.
        multi_scale_interval: batches between two changes of the size.
        groups: a number for each picture; pictures with different ones share no batch. None for one group.
        drop_last: leave out the pictures that fill no batch on every process. Otherwise, and in a set too
            small for a single batch, the last batch is filled up from the beginning of the order.

    Raises:
        ValueError: as `EpochSampler`; no multiple of 32 in `multi_scale`; an interval below 1; another
            number of groups than of pictures.
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
        groups: Int64[np.ndarray, "N"] | None = None,
        drop_last: bool = True,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__(count, batch_size, seed=seed, rank=rank, world=world)
        self.drop_last = drop_last
        self.image_size = image_size
        self.sides = None if multi_scale is None else sides_between(*multi_scale)
        if multi_scale_interval < 1:
            raise ValueError(f"multi_scale_interval: expected 1 or more, got {multi_scale_interval}")
        self.multi_scale_interval = multi_scale_interval
        self.groups = np.zeros(count, np.int64) if groups is None else groups
        if len(self.groups) != count:
            raise ValueError(
                f"groups: expected one number for each of {count} pictures, got {len(self.groups)}"
            )
        self.kinds, counts = np.unique(self.groups, return_counts=True)
        self.batches_per_kind = [self._batches(int(members)) for members in counts]

    def __len__(self) -> int:
        """Batches per epoch of each process."""
        return sum(self.batches_per_kind)

    def _batches(self, members: int) -> int:
        """Batches per epoch of so many pictures."""
        step = self.batch_size * self.world
        return max(1, members // step) if self.drop_last else -(-members // step)

    def from_batch(self, start: int) -> Iterator[BatchKey]:
        """The batches of the epoch from number `start` on; nothing is drawn differently for the start."""
        random = np.random.default_rng([self.seed, self.epoch, ORDER])
        order = random.permutation(self.count)
        step = self.batch_size * self.world
        # np.resize repeats the beginning of an order that is too short.
        batches = np.concatenate(
            [
                np.resize(order[self.groups[order] == kind], (wanted, step))
                for kind, wanted in zip(self.kinds, self.batches_per_kind, strict=True)
            ]
        )
        if len(self.kinds) > 1:
            batches = random.permutation(batches)
        sizes = self.sizes()
        for number in range(start, len(self)):
            mine = batches[number, self.rank :: self.world]
            yield BatchKey(self.epoch, tuple(mine.tolist()), sizes[number])

    def sizes(self) -> list[Size]:
        """Width and height of each batch of the epoch, the same for all processes."""
        if self.sides is None:
            return [self.image_size] * len(self)
        random = np.random.default_rng([self.seed, self.epoch, SIZES])
        drawn = random.choice(self.sides, -(-len(self) // self.multi_scale_interval))
        return [
            with_longer_side(self.image_size, int(drawn[number // self.multi_scale_interval]))
            for number in range(len(self))
        ]


class EvaluationSampler(EpochSampler):
    """Every picture once, in order, spread over the processes.

    Every process gets the same number of batches: one that waits for another in a batch which the other
    does not have waits forever. So the shares, which differ by one picture at most, are cut into equally
    many batches. Only a process without pictures for all of them (fewer pictures than processes, or batches
    of one) shows its last picture again, or the first of the set: whoever collects results keeps them by
    picture, as `MeanPrecision` does.
    """

    def __len__(self) -> int:
        """Batches of each process."""
        largest_share = -(-self.count // self.world)
        return -(-largest_share // self.batch_size)

    def from_batch(self, start: int) -> Iterator[BatchKey]:
        """The batches from number `start` on."""
        mine = range(self.rank, self.count, self.world)
        again = (mine[-1] if mine else 0,)
        batches = len(self)
        for number in range(start, batches):
            first, last = (-(-cut * len(mine) // batches) for cut in (number, number + 1))
            yield BatchKey(0, tuple(mine[first:last]) or again)


def sides_between(low: int, high: int) -> list[int]:
    """The multiples of 32 from `low` to `high`.

    Raises:
        ValueError: there are none.
    """
    sides = [side for side in range(SIZE_STEP, high + 1, SIZE_STEP) if side >= low]
    if not sides:
        raise ValueError(f"multi_scale: expected a range with a multiple of {SIZE_STEP}, got ({low}, {high})")
    return sides


def with_longer_side(size: Size, side: int) -> Size:
    """About the same proportions with another longer side; multiples of 32 px if `side` is one."""
    longer = max(size)
    width, height = (max(SIZE_STEP, round(length * side / longer / SIZE_STEP) * SIZE_STEP) for length in size)
    return width, height
