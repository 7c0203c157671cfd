"""The decoded pixels of a data set's pictures, no larger than the network can use."""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from boxmatch.data.annotations import Annotations
from boxmatch.data.cache import ImageCache
from boxmatch.data.geometry import Size, fitted_size, resample
from boxmatch.data.images import is_plain_jpeg, open_image, oriented_size
from boxmatch.errors import DataError

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision 0.29 announces that its decoders will go; Pillow then reads everything
    decode_jpeg = None


class Pictures:
    """Pixels by position in the data set.

    Args:
        annotations: names the files.
        side: pictures whose longer side exceeds this are reduced to it when they are read, because no
            augmentation shows more detail; what is seen is then the same with and without a cache.
        cache: keeps what was read.

    Attributes:
        opened: for each worker of a data loader its process and the picture that it opened last, in shared
            memory, so that there is something to say when it dies. None without workers.
    """

    def __init__(self, annotations: Annotations, *, side: int, cache: ImageCache | None = None) -> None:
        self.annotations = annotations
        self.side = side
        self.cache = cache
        self.opened: Tensor | None = None
        self._sizes = np.zeros((len(annotations), 2), np.int32)

    def size(self, index: int) -> Size:
        """Width and height of the upright file, from its header: annotations may be wrong about it.

        Raises:
            DataError: the file cannot be read.
        """
        if not self._sizes[index, 0]:
            try:
                self._sizes[index] = oriented_size(self.annotations.file(index))
            except DataError as error:
                raise DataError(f"picture {index} of the data set: {error}") from error
        width, height = self._sizes[index].tolist()
        return width, height

    def pixels(self, index: int) -> UInt8[Tensor, "H W 3"]:
        """RGB pixels, reduced where the file is larger than `side`; not to be written to.

        Raises:
            DataError: the file cannot be read.
        """
        self._note(index)
        cached = None if self.cache is None else self.cache.get(index)
        if cached is not None:
            return cached
        try:
            pixels = read_pixels(self.annotations.file(index), self.side)
        except DataError as error:
            raise DataError(f"picture {index} of the data set: {error}") from error
        if self.cache is not None:
            self.cache.put(index, pixels)
        return pixels

    def last_opened(self, processes: set[int]) -> list[str]:
        """For each of these worker processes a sentence about the picture that it opened last."""
        return [
            f"worker {worker} died; the last picture it opened is {index} ({self.annotations.file(index)})"
            for worker, (process, index) in enumerate([] if self.opened is None else self.opened.tolist())
            if process in processes
        ]

    def _note(self, index: int) -> None:
        worker = get_worker_info()
        if worker is not None and self.opened is not None:
            self.opened[worker.id] = torch.tensor((os.getpid(), index))


def read_pixels(path: Path, side: int | None = None) -> UInt8[Tensor, "H W 3"]:
    """RGB pixels of an upright picture, reduced to `side` where its longer side exceeds that.

    Raises:
        DataError: the file cannot be read.
    """
    size = oriented_size(path)
    whole = _decoded_jpeg(path) if side is None or max(size) < 2 * side else None
    pixels = torch.from_numpy(np.array(open_image(path, side=side))) if whole is None else whole
    if side is None or max(size) <= side:
        return pixels
    return resample(pixels, fitted_size(size, (side, side))).contiguous()


def _decoded_jpeg(path: Path) -> UInt8[Tensor, "H W 3"] | None:
    """Pixels of an ordinary JPEG at four times the speed; None for every other file, damaged ones included.

    torchvision and Pillow use the same library, so that pixels are equal; Pillow's conversions take the time.
    """
    if decode_jpeg is None or not is_plain_jpeg(path):
        return None
    encoded = torch.from_numpy(np.fromfile(path, np.uint8))
    try:
        planes = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    except RuntimeError:
        return None  # Pillow says what is wrong with it
    return planes.permute(1, 2, 0).contiguous()
