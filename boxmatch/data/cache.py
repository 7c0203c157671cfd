"""Decoded pictures in memory, up to a limit, shared by the processes of a data loader."""

import mmap
import multiprocessing
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info


class ImageCache:
    """Keeps pictures until it is full; then what is in stays and nothing new comes in.

    The memory is mapped before the workers are forked, so that all of them fill and read one store, and
    what no picture fills costs nothing. Workers that are started in another way (spawn, forkserver) each
    keep their part of the limit. In a distributed run every process has its own store.

    Args:
        limit_mb: mebibytes of pixels.
        count: pictures in the data set.

    Raises:
        ValueError: no room for a single byte, or more than the machine has.
    """

    def __init__(self, limit_mb: float, count: int) -> None:
        if limit_mb <= 0:
            raise ValueError(f"expected a cache of more than 0 MB, got {limit_mb}")
        self.limit_mb, self.count = limit_mb, count
        self._own = False
        self._map()

    def _map(self) -> None:
        size = int(self.limit_mb * 2**20)
        try:
            pixels = mmap.mmap(-1, size)
        except OSError as error:
            raise ValueError(
                f"the machine cannot give {self.limit_mb} MB to the picture cache ({error}); lower cache_mb"
            ) from error
        self._pixels = torch.frombuffer(pixels, dtype=torch.uint8)
        # Row i: one past the first byte of picture i (0: not in), height, width. The last row: bytes used.
        places = mmap.mmap(-1, (self.count + 1) * 3 * 8)
        self._places = np.frombuffer(places, dtype=np.int64).reshape(-1, 3)
        self._lock = multiprocessing.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_mb": self.limit_mb, "count": self.count}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _own=True)
        self._map()

    @property
    def used(self) -> int:
        """Bytes of pixels that are in."""
        return int(self._places[self.count, 0])

    def __len__(self) -> int:
        return int((self._places[: self.count, 0] > 0).sum())

    def get(self, index: int) -> UInt8[Tensor, "H W 3"] | None:
        """The pixels of a picture, or None where they are not in; not to be written to."""
        start, height, width = self._places[index].tolist()
        if not start:
            return None
        return self._pixels[start - 1 : start - 1 + height * width * 3].view(height, width, 3)

    def put(self, index: int, pixels: UInt8[Tensor, "H W 3"]) -> bool:
        """Keep a copy of the pixels; says whether there was room."""
        size = pixels.numel()
        with self._lock:
            start = self.used
            if start + size > self._limit():
                return False
            self._places[self.count, 0] = start + size
        self._pixels[start : start + size].view(pixels.shape).copy_(pixels)
        # The place is published last: whoever sees it sees whole pixels. Two processes that decode the same
        # picture at the same moment both store it; the later place wins and the pixels are equal.
        self._places[index, 1:] = pixels.shape[:2]
        self._places[index, 0] = start + 1
        return True

    def _limit(self) -> int:
        worker = get_worker_info()
        return len(self._pixels) // (worker.num_workers if self._own and worker else 1)
