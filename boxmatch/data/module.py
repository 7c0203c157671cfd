"""The data of a run as the Trainer wants it; plain loops use its loaders as they are."""

import math
import multiprocessing
from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch

from boxmatch.data.annotations import Annotations
from boxmatch.data.cache import ImageCache
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.geometry import SIZE_STEP, Fill
from boxmatch.data.headers import Progress
from boxmatch.data.load import load_splits
from boxmatch.data.loader import StatefulLoader
from boxmatch.data.problems import CheckPolicy
from boxmatch.data.read import Format, ReadOptions
from boxmatch.data.report import CheckReport
from boxmatch.data.resize import ShortSide
from boxmatch.data.sampler import EvaluationSampler, TrainSampler, sides_between
from boxmatch.data.transforms import LAYOUT_PROBABILITIES, Augment
from boxmatch.data.voc import Difficult
from boxmatch.errors import DataError

Split = Literal["train", "val", "test"]
PRESET = Augment()
POLICY = CheckPolicy()


class DataModule(pl.LightningDataModule):
    """Training, validation and test pictures of one data set, read and checked once.

    Args:
        root: folder of the data set; no file name may leave it.
        format: layout of the folder: voc, coco, yolo, or found out.
        train: image sets (VOC), json files (COCO) or keys of data.yaml (YOLO) to train on; usually found.
        val: the same for validation; without one, a tenth of the training pictures is held out.
        test: the same for the test; none unless the data has one or it is named.
        class_names: classes in the order of their labels; found in the data when not given.
        image_size: side of the network's input in pixels, or width and height; multiples of 32.
        resize: give each picture a size by its shorter side, in place of image_size; `augment` may then
            change colours and flip, nothing else.
        multi_scale: smallest and largest longer side of the training batches, in steps of 32 px; always
            image_size when not given.
        multi_scale_interval: batches between two changes of the size.
        batch_size: pictures per step and process.
        workers: processes that read pictures; 0 reads in the training process.
        cache_mb: memory for decoded pictures per split and process, 0 for none.
        augment: what happens to the training pictures.
        fill: grey value beside and between the pictures, 0 to 255, or red, green and blue.
        difficult: VOC objects marked difficult: keep them, drop them, or ignore their regions.
        crowd: regions that are no single object (COCO crowds, difficult VOC objects where they are ignored):
            teach nothing there in training, or drop the mark, so that the region counts as background.
        keep_empty: train on pictures without objects too.
        min_label_area: objects of this many square pixels or fewer are left out of all splits, and so is
            what a crop leaves of an object if it is less.
        policy: what to do about each kind of problem in the data.
        check_pictures: read the header of each picture before training, decode it, or skip this check.
        seed: number that the order and the augmentation follow from.
        drop_last: leave out the pictures at the end of an epoch that fill no batch.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        root: str,
        *,
        format: Format | Literal["auto"] = "auto",
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        class_names: list[str] | None = None,
        image_size: int | tuple[int, int] = 416,
        resize: ShortSide | None = None,
        multi_scale: tuple[int, int] | None = None,
        multi_scale_interval: int = 1,
        batch_size: int = 16,
        workers: int = 0,
        cache_mb: float = 0,
        augment: Augment = PRESET,
        fill: Fill = 0,
        difficult: Difficult = "keep",
        crowd: Literal["ignore", "drop"] = "ignore",
        keep_empty: bool = True,
        min_label_area: float = 10,
        policy: CheckPolicy = POLICY,
        check_pictures: Literal["header", "decode", "skip"] = "header",
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        width, height = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size = (width, height)
        if any(side < SIZE_STEP or side % SIZE_STEP for side in self.image_size):
            raise ValueError(f"image_size: expected multiples of {SIZE_STEP}, got {image_size}")
        in_range("batch_size", batch_size, 1)
        in_range("workers", workers, 0)
        in_range("cache_mb", cache_mb, 0)
        for value in (fill,) if isinstance(fill, int) else fill:
            in_range("fill", value, 0, 255)
        in_range("min_label_area", min_label_area, 0)
        in_range("seed", seed, 0)
        if resize is not None:
            _check_resize(augment, multi_scale)
        self.resize, self.crowd = resize, crowd
        self.largest_side = max(self.image_size) if multi_scale is None else max(sides_between(*multi_scale))
        self.root, self.format = root, format
        self.train, self.val, self.test = train, val, test
        self.multi_scale, self.multi_scale_interval = multi_scale, multi_scale_interval
        self.batch_size, self.workers, self.cache_mb = batch_size, workers, cache_mb
        self.augment, self.fill = augment, fill
        self.difficult, self.keep_empty, self.min_label_area = difficult, keep_empty, min_label_area
        self.policy, self.check_pictures = policy, check_pictures
        self.seed, self.drop_last = seed, drop_last
        self._given_names = class_names
        self._read: dict[str, Annotations] | None = None
        self._report: CheckReport | None = None

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Read and check all splits, once; `report.refuse()` raises if training is out of the question.

        Args:
            progress: called with (pictures done, pictures in all).

        Raises:
            DataError: there is nothing to check.
        """
        if self._report is None:
            wanted = {"train": self.train, "val": self.val, "test": self.test}
            if self.val and not self.test:
                del wanted["test"]  # it may be what someone chose to validate on
            self._read, self._report = load_splits(
                self.root,
                wanted,
                layout=self.format,
                class_names=self._given_names,
                options=ReadOptions(difficult=self.difficult, progress=progress),
                policy=self.policy,
                pictures=self.check_pictures,
            )
            self._read = {split: self._filtered(split, found) for split, found in self._read.items()}
        return self._report

    def _filtered(self, split: str, annotations: Annotations) -> Annotations:
        """Without objects that are too small and, if wanted, without empty training pictures."""
        width, height = (annotations.boxes[:, 2:] - annotations.boxes[:, :2]).T
        counted = annotations.select_boxes((width * height > self.min_label_area) | annotations.ignore)
        if split == "train" and self.crowd == "drop":
            counted = counted.select_boxes(~counted.ignore)
        if split != "train" or self.keep_empty:
            return counted
        owners = counted.image_index()[~counted.ignore]
        return counted.select_images(np.unique(owners))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels.

        Raises:
            DataError: the data cannot be used.
        """
        return self.annotations("train").class_names

    def annotations(self, split: str) -> Annotations:
        """Objects of "train", "val" or "test" that are trained on or counted.

        Raises:
            DataError: the data cannot be used, or there is no such split.
        """
        self.check().refuse()
        found = self._read or {}
        if split not in found:
            raise DataError(
                f"{self.root}: no split {split!r}, only {sorted(found)}; name its entries with data.{split}"
            )
        return found[split]

    def dataset(
        self, split: str, augment: Augment | None = None, *, max_epochs: int | None = None
    ) -> DetectionDataset:
        """The samples of a split: whole pictures, or augmented ones.

        Args:
            max_epochs: length of the run, needed to know its last epochs.
        """
        annotations = self._usable(split)
        closed = augment.close_mosaic_epochs if augment and max_epochs and max_epochs > 0 else 0
        return DetectionDataset(
            annotations,
            image_size=self.image_size,
            resize=self.resize,
            augment=augment,
            seed=self.seed,
            cache=ImageCache(self.cache_mb, len(annotations)) if self.cache_mb else None,
            min_area=self.min_label_area,
            fill=self.fill,
            mosaic_epochs=max_epochs - closed if closed and max_epochs else None,
            largest_side=self.largest_side if augment else None,
        )

    def train_dataloader(self, max_epochs: int | None = None) -> StatefulLoader:
        """Augmented batches in random order.

        Args:
            max_epochs: length of the run; asked of the Trainer where there is one.
        """
        if max_epochs is None and self.trainer is not None:
            max_epochs = self.trainer.max_epochs
        dataset = self.dataset("train", self.augment, max_epochs=max_epochs)
        sampler = TrainSampler(
            len(dataset),
            self.batch_size,
            image_size=self.image_size,
            seed=self.seed,
            multi_scale=self.multi_scale,
            multi_scale_interval=self.multi_scale_interval,
            groups=self._groups(dataset),
            drop_last=self.drop_last,
        )
        return self._loader(dataset, sampler)

    def _groups(self, dataset: DetectionDataset) -> np.ndarray | None:
        """1 for pictures that are wider than tall and 0 for the others, where they share no batch."""
        if self.resize is None or not self.resize.group:
            return None
        sizes = dataset.annotations.sizes.copy()
        # Some annotations do not say how large their pictures are.
        for index in np.nonzero(sizes[:, 0] < 0)[0].tolist():
            sizes[index] = dataset.pictures.size(index)
        width, height = sizes.T
        return (width > height).astype(np.int64)

    def val_dataloader(self) -> StatefulLoader:
        """Whole pictures of the validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> StatefulLoader:
        """Whole pictures of the test split."""
        return self._evaluation("test")

    def _usable(self, split: str) -> Annotations:
        """What the loaders show of a split; in shared memory where workers would otherwise copy it."""
        annotations = self.annotations(split)
        usual = multiprocessing.get_all_start_methods()[0]
        if self.workers and (multiprocessing.get_start_method(allow_none=True) or usual) != "fork":
            return annotations.share()
        return annotations

    def _evaluation(self, split: str) -> StatefulLoader:
        dataset = self.dataset(split)
        return self._loader(dataset, EvaluationSampler(len(dataset), self.batch_size))

    def _loader(self, dataset: DetectionDataset, sampler: TrainSampler | EvaluationSampler) -> StatefulLoader:
        return StatefulLoader(
            dataset,
            sampler,
            workers=self.workers,
            seed=self.seed,
            progress=self._batches_used if isinstance(sampler, TrainSampler) else None,
            pin_memory=torch.cuda.is_available(),
        )

    def _batches_used(self) -> int | None:
        """The Trainer counts what was used and not what was read; None in a plain loop."""
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready) if self.trainer else None


def _check_resize(augment: Augment, multi_scale: tuple[int, int] | None) -> None:
    """Raise a ValueError unless what else is asked for goes with pictures of sizes of their own."""
    asked = [name for name in LAYOUT_PROBABILITIES if getattr(augment, name)]
    if asked:
        raise ValueError(
            f"resize: goes with flips and colours only, got augment.{', augment.'.join(asked)} above 0; set "
            "them to 0, or leave resize out"
        )
    if multi_scale is not None:
        raise ValueError(
            f"resize: expected no multi_scale beside it, got {multi_scale}; use train_short_side"
        )


def in_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise a ValueError that names the option unless its value lies between the two."""
    if not least <= value <= most:
        bounds = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        raise ValueError(f"{name}: expected {bounds}, got {value}")
