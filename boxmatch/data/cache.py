"""Decoded pictures in memory, up to a limit, shared by the processes of a data loader."""

from jaxtyping import UInt8
from torch import Tensor


class ImageCache:
    """Keeps pictures until it is full; then what is in stays and nothing new comes in.

    Args:
        limit_mb: mebibytes of pixels.
    """

    def __init__(self, limit_mb: float) -> None:
        self.limit = int(limit_mb * 2**20)
        self.used = 0
        self._pictures: dict[int, UInt8[Tensor, "H W 3"]] = {}

    def get(self, index: int) -> UInt8[Tensor, "H W 3"] | None:
        """The pixels, or None where they are not in."""
        return self._pictures.get(index)

    def put(self, index: int, pixels: UInt8[Tensor, "H W 3"]) -> bool:
        """Keep the pixels; says whether there was room."""
        if self.used + pixels.numel() > self.limit:
            return False
        self._pictures[index] = pixels
        self.used += pixels.numel()
        return True
