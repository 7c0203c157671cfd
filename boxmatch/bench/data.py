"""Time of the data pipeline on one core: samples per second, and where the time goes."""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from boxmatch.data.annotations import Annotations, from_columns
from boxmatch.data.batch import collate
from boxmatch.data.cache import ImageCache
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.geometry import Size
from boxmatch.data.pictures import Pictures
from boxmatch.data.transforms import Augment

SOURCE = (640, 480)  # the most frequent size in COCO
SOURCE_BYTES = 160_000  # mean file of COCO train2017: 19.3 GB, 118 287 pictures; decoding time follows it
BOXES = 8  # COCO train2017: 7.3 objects per picture


@dataclass(frozen=True)
class DataRow:
    """One line of the benchmark; `dataclasses.asdict` makes it JSON.

    Times are processor time of one thread, so that other programs on the machine disturb them little.

    Args:
        source: where the pictures came from.
        cached: decoded pictures were in memory.
        size: width and height of the samples.
        samples: how many were made.
        samples_per_second: of one core, batches included.
        milliseconds: per sample, mean over all.
        median_milliseconds: per sample, median of the batches.
        best_milliseconds: per sample, fastest batch.
        decode: share of reading and decoding files, or of looking pictures up.
        geometry: share of placing, resampling, clipping and mirroring.
        color: share of changing colours.
        collate: share of joining samples to batches.
    """

    source: str
    cached: bool
    size: Size
    samples: int
    samples_per_second: float
    milliseconds: float
    median_milliseconds: float
    best_milliseconds: float
    decode: float
    geometry: float
    color: float
    collate: float


def bench_data(
    annotations: Annotations | None = None,
    *,
    size: int | Size = 416,
    augment: Augment | None = None,
    batch_size: int = 16,
    batches: int = 20,
    cache_mb: float = 1000,
    seed: int = 0,
) -> list[DataRow]:
    """Measure training samples without and with a cache, on one thread.

    Args:
        annotations: a data set; 64 generated JPEG files of 640 x 480 px and 160 kB when None.
        size: side, or width and height, of the samples.
        augment: the published preset, mosaic always, when None.
        cache_mb: memory of the cache; one that does not hold the set measures a mixture.
    """
    width, height = (size, size) if isinstance(size, int) else size
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = "generated" if annotations is None else str(annotations.root)
            used = write_pictures(Path(folder)) if annotations is None else annotations
            return [
                _bench(
                    used,
                    source,
                    cached * cache_mb,
                    (width, height),
                    augment or Augment(),
                    batch_size,
                    batches,
                    seed,
                )
                for cached in (False, True)
            ]
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Clock:
    """Seconds of processor time by stage."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decode", "color", "collate", "all"), 0.0)
    )

    def add(self, stage: str, since: float) -> None:
        self.seconds[stage] += time.thread_time() - since


class _TimedPictures(Pictures):
    clock: _Clock

    def pixels(self, index: int) -> torch.Tensor:
        start = time.thread_time()
        pixels = super().pixels(index)
        self.clock.add("decode", start)
        return pixels


class _TimedDataset(DetectionDataset):
    """Notes how long pictures and colours take; everything else in a sample is geometry."""

    def __init__(
        self, annotations: Annotations, clock: _Clock, cache: ImageCache | None, **options: object
    ) -> None:
        super().__init__(annotations, **options)  # type: ignore[arg-type]
        self.pictures = _TimedPictures(annotations, side=self.pictures.side, cache=cache)
        self.pictures.clock = self.clock = clock

    def _colored(self, image: torch.Tensor, options: Augment, random: np.random.Generator) -> torch.Tensor:
        start = time.thread_time()
        image = super()._colored(image, options, random)
        self.clock.add("color", start)
        return image


def _bench(
    annotations: Annotations,
    source: str,
    cache_mb: float,
    size: Size,
    augment: Augment,
    batch_size: int,
    batches: int,
    seed: int,
) -> DataRow:
    clock = _Clock()
    cache = ImageCache(cache_mb, len(annotations)) if cache_mb else None
    dataset = _TimedDataset(annotations, clock, cache, image_size=size, augment=augment, seed=seed)
    for index in range(len(annotations) if cache is not None else min(batch_size, len(annotations))):
        dataset.pictures.pixels(index)  # fills the cache, or wakes the decoder and the file system
    clock.seconds.update(dict.fromkeys(clock.seconds, 0.0))
    order = np.random.default_rng(seed).integers(0, len(annotations), (batches, batch_size))
    each = []
    for epoch, indices in enumerate(order.tolist()):
        start = time.thread_time()
        samples = [dataset.sample(epoch, index) for index in indices]
        joining = time.thread_time()
        collate(samples)
        clock.add("collate", joining)
        clock.add("all", start)
        each.append((time.thread_time() - start) / batch_size * 1e3)
    total = clock.seconds["all"]
    shares = {stage: clock.seconds[stage] / total for stage in ("decode", "color", "collate")}
    return DataRow(
        source=source,
        cached=cache is not None,
        size=size,
        samples=batches * batch_size,
        samples_per_second=batches * batch_size / total,
        milliseconds=statistics.fmean(each),
        median_milliseconds=statistics.median(each),
        best_milliseconds=min(each),
        geometry=1 - sum(shares.values()),
        **shares,
    )


def write_pictures(folder: Path, count: int = 64, size: Size = SOURCE, seed: int = 0) -> Annotations:
    """JPEG files that cost as much to decode as photographs, with a few boxes each."""
    random = np.random.default_rng(seed)
    names = [f"{number:03d}.jpg" for number in range(count)]
    for name in names:
        _photograph(random, size).save(folder / name, quality=90)
    corners = np.sort(random.uniform(0, 1, (count * BOXES, 2, 2)), axis=1) * size
    return from_columns(
        folder,
        names=names,
        sizes=np.tile(np.array(size), (count, 1)),
        image_of_box=np.repeat(np.arange(count), BOXES),
        boxes=corners.reshape(-1, 4).astype(np.float32),
        labels=random.integers(0, 3, count * BOXES),
        ignore=np.zeros(count * BOXES, dtype=bool),
        object_ids=np.arange(1, count * BOXES + 1),
        class_names=("a", "b", "c"),
    )


def _photograph(random: np.random.Generator, size: Size) -> Image.Image:
    """Smooth colours with grain of a strength that gives files of about `SOURCE_BYTES`."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, 14, smooth.shape[:2])[..., None]
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
