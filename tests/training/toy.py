"""A detector of three convolutions and pictures of one bright square: what the training tests run on."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from boxmatch.data.annotations import Annotations, from_columns
from boxmatch.data.batch import Batch, Sample, collate
from boxmatch.data.loader import StatefulLoader
from boxmatch.data.sampler import BatchKey, EvaluationSampler, TrainSampler
from boxmatch.structures import Detections, Targets

SIZE, CELL = 32, 8


class ToyDetector(nn.Module):
    """One box per picture cell, with batch norm and dropout so that hidden state would show."""

    def __init__(self, class_names: tuple[str, ...] = ("square", "block"), dropout: float = 0.1) -> None:
        super().__init__()
        self.class_names = class_names
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 4, 1),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Conv2d(8, 4 + len(class_names), 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return self.body(images).flatten(2).transpose(1, 2).float()  # (B, P, 4 + C)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        out = self(images)
        side = SIZE // CELL
        cell = ((targets.boxes[:, :2] + targets.boxes[:, 2:]) / 2 / CELL).long().clamp(0, side - 1)
        prior = cell[:, 1] * side + cell[:, 0]
        wanted = torch.zeros_like(out[..., 4:])
        wanted[targets.image, prior, targets.labels] = 1.0
        box = out[targets.image, prior, :4]
        count = len(images)
        return {
            "class": nn.functional.binary_cross_entropy_with_logits(out[..., 4:], wanted, reduction="sum")
            / count,
            "box": 0.1 * (box - targets.boxes / SIZE).abs().sum() / count + 0 * out.sum(),
        }

    @torch.no_grad()
    def predict(self, images: Tensor, *, sizes: Tensor | None = None) -> list[Detections]:
        training = self.training
        self.eval()
        out = self(images)
        self.train(training)
        scores, labels = out[..., 4:].sigmoid().max(-1)
        found = []
        for boxes, score, label in zip(out[..., :4] * SIZE, scores, labels):
            order = score.argsort(descending=True)[:3]
            found.append(Detections(boxes[order], score[order], label[order]))
        return found


def picture(index: int) -> tuple[Tensor, list[int], int]:
    """A dark picture with one bright square; its box and its class, 1 for the larger ones."""
    generator = torch.Generator().manual_seed(index)
    side = int(torch.randint(6, 16, (), generator=generator))
    x, y = torch.randint(0, SIZE - side, (2,), generator=generator).tolist()
    image = torch.randint(0, 60, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    image[:, y : y + side, x : x + side] = 220
    return image, [x, y, x + side, y + side], int(side > 10)


class ToyDataset(Dataset[Batch]):
    """Batches by key, with noise from (epoch, index): a wrong order or a repeated batch changes the weights.

    Args:
        annotations: one box per picture.
        noisy: add the noise.
    """

    def __init__(self, annotations: Annotations, noisy: bool) -> None:
        self.annotations, self.noisy = annotations, noisy

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: BatchKey) -> Batch:
        return collate([self._sample(key.epoch, index) for index in key.indices])

    def _sample(self, epoch: int, index: int) -> Sample:
        image, _, _ = picture(index)
        if self.noisy:
            generator = torch.Generator().manual_seed(1000 * epoch + index)
            image = image + torch.randint(0, 30, image.shape, generator=generator, dtype=torch.uint8)
        rows, one = self.annotations.rows(index), (1.0, 1.0)
        labels = self.annotations.labels[rows].astype(np.int64)
        boxes, ignore = self.annotations.boxes[rows], self.annotations.ignore[rows]
        return Sample(image, boxes, labels, ignore, index, index, (SIZE, SIZE), one, (0.0, 0.0))


class ToyData(pl.LightningDataModule):
    """Numbered pictures; validation sees the same ones without noise.

    Args:
        count: pictures.
        batch_size: pictures per batch and process.
        seed: of the order.
        class_names: one name per label.
        empty_from: pictures from this number on have no box.
    """

    def __init__(
        self,
        count: int = 16,
        batch_size: int = 4,
        seed: int = 0,
        class_names: tuple[str, ...] = ("square", "block"),
        empty_from: int | None = None,
    ) -> None:
        super().__init__()
        self.count, self.batch_size, self.seed, self.class_names = count, batch_size, seed, class_names
        self.empty_from = count if empty_from is None else empty_from

    def annotations(self, split: str) -> Annotations:
        boxed = range(self.empty_from)
        return from_columns(
            Path("toy"),
            names=[f"picture_{i}.png" for i in range(self.count)],
            sizes=np.full((self.count, 2), SIZE),
            image_of_box=np.array(boxed, dtype=np.int64),
            boxes=np.array([picture(i)[1] for i in boxed], dtype=np.float32),
            labels=np.array([picture(i)[2] for i in boxed]),
            ignore=np.zeros(len(boxed), dtype=bool),
            object_ids=np.arange(1, len(boxed) + 1),
            class_names=self.class_names,
        )

    def train_dataloader(self) -> StatefulLoader:
        sampler = TrainSampler(self.count, self.batch_size, image_size=(SIZE, SIZE), seed=self.seed)
        return self._loader(True, sampler, progress=self._batches_used)

    def val_dataloader(self) -> StatefulLoader:
        return self._loader(False, EvaluationSampler(self.count, self.batch_size))

    def _loader(
        self, noisy: bool, sampler: TrainSampler | EvaluationSampler, **options: object
    ) -> StatefulLoader:
        return StatefulLoader(ToyDataset(self.annotations("train"), noisy), sampler, **options)  # type: ignore[arg-type]

    def _batches_used(self) -> int:
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready)  # type: ignore[union-attr]
