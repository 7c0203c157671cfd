"""A detector of three convolutions and pictures of one bright square: what the training tests run on."""

from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from boxmatch.metrics import GroundTruth
from boxmatch.structures import Detections, Targets

SIZE, CELL = 32, 8


@dataclass(frozen=True)
class ToyBatch:
    images: Tensor
    targets: Targets
    image_id: Tensor
    path: tuple[str, ...]

    def restore(self, detections: list[Detections]) -> list[Detections]:
        return detections

    def to(self, device: torch.device) -> "ToyBatch":
        return ToyBatch(self.images.to(device), self.targets.to(device), self.image_id, self.path)

    def pin_memory(self) -> "ToyBatch":
        return self


class ToyDetector(nn.Module):
    """One box per picture cell, with batch norm and dropout so that hidden state would show."""

    def __init__(self, class_names: tuple[str, ...] = ("square", "blob"), dropout: float = 0.1) -> None:
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
        count = max(len(targets), 1)
        return {
            "class": nn.functional.binary_cross_entropy_with_logits(out[..., 4:], wanted, reduction="sum") / count,
            "box": 0.1 * (box - targets.boxes / SIZE).abs().sum() / count,
        }

    @torch.no_grad()
    def predict(self, images: Tensor) -> list[Detections]:
        out = self(images)
        scores, labels = out[..., 4:].sigmoid().max(-1)
        found = []
        for boxes, score, label in zip(out[..., :4] * SIZE, scores, labels):  # three rows per picture
            order = score.argsort(descending=True)[:3]
            found.append(Detections(boxes[order], score[order], label[order]))
        return found


class ToySampler(Sampler[int]):
    """An order from (seed, epoch), shared between the processes, that can start in the middle."""

    def __init__(self, count: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1) -> None:
        self.count, self.seed, self.shuffle, self.rank, self.world = count, seed, shuffle, rank, world
        self.epoch, self.skip = 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.world if self.shuffle else len(range(self.rank, self.count, self.world))

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.count))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
            order = torch.randperm(self.count, generator=generator).tolist()
        skip, self.skip = self.skip, 0
        yield from order[self.rank :: self.world][skip:]


class ToyLoader(DataLoader):
    """A loader that knows the batch it has reached."""

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.sampler.epoch, "batches": self.reached}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.set_epoch(state["epoch"])
        self.sampler.skip = state["batches"] * self.batch_size

    reached = 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)


def picture(index: int) -> tuple[Tensor, Tensor, int]:
    """A dark picture with one bright square; its box and its class, 1 for the larger ones."""
    generator = torch.Generator().manual_seed(index)
    side = int(torch.randint(6, 16, (), generator=generator))
    x, y = torch.randint(0, SIZE - side, (2,), generator=generator).tolist()
    image = torch.randint(0, 60, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    image[:, y : y + side, x : x + side] = 220
    return image, torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32), int(side > 10)


class ToyData(pl.LightningDataModule):
    """Pictures numbered from 0; the validation set is the same pictures."""

    def __init__(self, count: int = 16, batch_size: int = 4, seed: int = 0, names: tuple[str, ...] = ("square", "blob")) -> None:
        super().__init__()
        self.count, self.batch_size, self.seed, self.class_names = count, batch_size, seed, names

    def collate(self, indices: list[int]) -> ToyBatch:
        images, boxes, labels = zip(*(picture(i) for i in indices))
        targets = Targets.from_lists(list(boxes), [[label] for label in labels])
        names = tuple(f"picture_{i}.png" for i in indices)
        return ToyBatch(torch.stack(images), targets, torch.tensor(indices), names)

    def loader(self, shuffle: bool) -> ToyLoader:
        world = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        return ToyLoader(
            list(range(self.count)),
            batch_size=self.batch_size,
            sampler=ToySampler(self.count, self.seed, shuffle, rank, world),
            collate_fn=self.collate,
            generator=torch.Generator(),
        )

    def train_dataloader(self) -> ToyLoader:
        return self.loader(True)

    def val_dataloader(self) -> ToyLoader:
        return self.loader(False)

    def ground_truths(self, batch: ToyBatch) -> list[GroundTruth]:
        found = []
        for index in batch.image_id.tolist():
            _, boxes, label = picture(index)
            found.append(GroundTruth(boxes, torch.tensor([label]), torch.tensor([False])))
        return found
