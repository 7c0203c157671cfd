"""The decoded pixels of a data set's pictures, no larger than the network can use."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from boxmatch.data.annotations import Annotations
from boxmatch.data.cache import ImageCache
from boxmatch.data.geometry import Size, fitted_size
from boxmatch.data.images import open_image, oriented_size


class Pictures:
    """Pixels by position in the data set.

    Args:
        annotations: names the files.
        side: pictures whose longer side exceeds this are reduced to it when they are read, because no augmentation shows
            more detail; what is seen is then the same with and without a cache.
        cache: keeps what was read.
    """

    def __init__(self, annotations: Annotations, *, side: int, cache: ImageCache | None = None) -> None:
        self.annotations = annotations
        self.side = side
        self.cache = cache
        self._sizes = np.zeros((len(annotations), 2), np.int32)

    def size(self, index: int) -> Size:
        """Width and height of the upright file, from its header: annotations may be wrong about it.

        Raises:
            DataError: the file cannot be read.
        """
        if not self._sizes[index, 0]:
            self._sizes[index] = oriented_size(self.annotations.file(index))
        width, height = self._sizes[index].tolist()
        return width, height

    def pixels(self, index: int) -> UInt8[Tensor, "H W 3"]:
        """RGB pixels, reduced where the file is larger than `side`; not to be written to.

        Raises:
            DataError: the file cannot be read.
        """
        cached = self.cache.get(index) if self.cache else None
        if cached is not None:
            return cached
        pixels = read_pixels(self.annotations.file(index), self.side)
        if self.cache:
            self.cache.put(index, pixels)
        return pixels


def read_pixels(path: Path, side: int | None = None) -> UInt8[Tensor, "H W 3"]:
    """RGB pixels of an upright picture, reduced where its longer side exceeds `side`.

    Raises:
        DataError: the file cannot be read.
    """
    pixels = torch.from_numpy(np.array(open_image(path)))
    size = (pixels.shape[1], pixels.shape[0])
    if side is None or max(size) <= side:
        return pixels
    width, height = fitted_size(size, (side, side))
    reduced = F.interpolate(
        pixels.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", antialias=True
    )
    return reduced[0].permute(1, 2, 0).contiguous()
