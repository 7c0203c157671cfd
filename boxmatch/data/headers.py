"""Sizes of many pictures from their headers, by several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from boxmatch.data.annotations import UNKNOWN_SIZE
from boxmatch.data.images import PIXEL_LIMIT, TooLargeError, open_image, read_size
from boxmatch.errors import DataError

THREADS = 8  # reading a header waits for the disk, not for the processor
AT_ONCE = 4096  # pictures handed to the pool at once: a list of a million waiting results needs a gigabyte
Progress = Callable[[int, int], None]  # (pictures done, pictures in all)


@dataclass(frozen=True)
class Headers:
    """What the headers of I pictures say.

    Args:
        sizes: upright width and height, -1 where the header gives none.
        turned: the EXIF rotation swapped width and height.
        problems: (kind, message) by position of the picture.
    """

    sizes: Int32[np.ndarray, "I 2"]
    turned: Bool[np.ndarray, "I"]
    problems: dict[int, tuple[str, str]]


def read_headers(
    count: int,
    file: Callable[[int], Path],
    *,
    pixel_limit: int = PIXEL_LIMIT,
    decode: bool = False,
    progress: Progress | None = None,
) -> Headers:
    """Read the header of each picture; with `decode` also all pixels, which finds files that are cut short.

    Args:
        count: number of pictures.
        file: where the picture at a position lies.
    """
    sizes = np.full((count, 2), UNKNOWN_SIZE, dtype=np.int32)
    turned = np.zeros(count, dtype=bool)
    problems: dict[int, tuple[str, str]] = {}

    def read(position: int) -> tuple[int, int, bool] | tuple[str, str]:
        path = file(position)
        try:
            size = read_size(path, pixel_limit)
            if decode:
                open_image(path, pixel_limit).close()
            return size
        except TooLargeError as error:
            return "large_picture", str(error)
        except DataError as error:
            return ("unreadable_picture" if path.exists() else "missing_picture"), str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, count, AT_ONCE):
            batch = range(start, min(start + AT_ONCE, count))
            for position, found in zip(batch, pool.map(read, batch), strict=True):
                if len(found) == 2:
                    problems[position] = found
                else:
                    sizes[position] = found[:2]
                    turned[position] = found[2]
            if progress is not None:
                progress(batch.stop, count)
    return Headers(sizes, turned, problems)
