"""The data of a run as the Trainer wants it; plain loops may use it as well."""

from typing import Literal

import lightning.pytorch as pl

from boxmatch.data.annotations import Annotations
from boxmatch.data.cache import ImageCache
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.loader import StatefulLoader
from boxmatch.data.sampler import EvaluationSampler, TrainSampler
from boxmatch.data.transforms import Augment
from boxmatch.data.voc import read_voc


class DataModule(pl.LightningDataModule):
    """Training, validation and test pictures of one data set.

    Args:
        root: folder of the data set.
    """

    def __init__(
        self,
        root: str,
        *,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        class_names: list[str] | None = None,
        image_size: int | tuple[int, int] = 416,
        multi_scale: tuple[int, int] | None = None,
        batch_size: int = 16,
        workers: int = 0,
        cache_mb: float = 0,
        augment: Augment | None = None,
        difficult: Literal["keep", "drop", "ignore"] = "keep",
        min_label_area: float = 10,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        self.root = root
        self.splits = {"train": train, "val": val, "test": test}
        self._class_names = class_names
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.multi_scale = multi_scale
        self.batch_size = batch_size
        self.workers = workers
        self.cache_mb = cache_mb
        self.augment = augment or Augment()
        self.difficult = difficult
        self.min_label_area = min_label_area
        self.seed = seed
        self.drop_last = drop_last
        self._read: dict[str, Annotations] = {}

    def annotations(self, split: str) -> Annotations:
        """Boxes of "train", "val" or "test", read once."""
        if split not in self._read:
            read = read_voc(self.root, self.splits[split], difficult=self.difficult)
            if split == "train" and self._class_names is None:
                self._class_names = list(read.class_names)
            self._read[split] = read.with_classes(self.class_names) if split != "train" else read
        return self._read[split]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        if self._class_names is None:
            self._class_names = list(self.annotations("train").class_names)
        return tuple(self._class_names)

    def dataset(self, split: str, augment: Augment | None = None) -> DetectionDataset:
        """One split as samples."""
        cache = ImageCache(self.cache_mb, len(self.annotations(split))) if self.cache_mb else None
        return DetectionDataset(
            self.annotations(split),
            image_size=self.image_size,
            augment=augment,
            seed=self.seed,
            cache=cache,
            min_area=self.min_label_area,
        )

    def train_dataloader(self) -> StatefulLoader:
        """Augmented batches in random order."""
        dataset = self.dataset("train", self.augment)
        sampler = TrainSampler(
            len(dataset),
            self.batch_size,
            image_size=self.image_size,
            seed=self.seed,
            multi_scale=self.multi_scale,
            drop_last=self.drop_last,
        )
        return StatefulLoader(
            dataset, sampler, workers=self.workers, seed=self.seed, progress=self._batches_used
        )

    def val_dataloader(self) -> StatefulLoader:
        """Whole pictures of the validation split."""
        return self._evaluation("val")

    def test_dataloader(self) -> StatefulLoader:
        """Whole pictures of the test split."""
        return self._evaluation("test")

    def _evaluation(self, split: str) -> StatefulLoader:
        dataset = self.dataset(split)
        sampler = EvaluationSampler(len(dataset), self.batch_size)
        return StatefulLoader(dataset, sampler, workers=self.workers, seed=self.seed)

    def _batches_used(self) -> int | None:
        """The Trainer reads a batch ahead, so it and not the loader knows; None in a plain loop."""
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready) if self.trainer else None
