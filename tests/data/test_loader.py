"""Loading: the same batches with any number of workers, resumes that read nothing twice, workers that die."""

import os
import signal

import lightning.pytorch as pl
import pytest
import torch
from drawn_set import drawn_set

from boxmatch.data import pictures
from boxmatch.data.cache import ImageCache
from boxmatch.data.dataset import DetectionDataset
from boxmatch.data.loader import StatefulLoader
from boxmatch.data.sampler import EvaluationSampler, TrainSampler
from boxmatch.data.transforms import Augment
from boxmatch.errors import DataError

COUNT, BATCH = 12, 3


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return drawn_set(tmp_path_factory.mktemp("drawn"), count=COUNT, size=(64, 48))


def loader(
    annotations, *, seed: int = 0, workers: int = 0, cache: ImageCache | None = None, kind=DetectionDataset
):
    dataset = kind(annotations, image_size=(64, 64), augment=Augment(), seed=seed, cache=cache)
    sampler = TrainSampler(len(dataset), BATCH, image_size=(64, 64), seed=seed, multi_scale=(32, 96))
    return StatefulLoader(dataset, sampler, workers=workers, seed=seed)


def content(batches) -> list[tuple]:
    return [(batch.index.tolist(), batch.images, batch.targets.boxes) for batch in batches]


def assert_equal(one: list[tuple], other: list[tuple]) -> None:
    assert [entry[0] for entry in one] == [entry[0] for entry in other]
    for (_, images, boxes), (_, other_images, other_boxes) in zip(one, other, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(boxes, other_boxes)


def two_epochs(stream: StatefulLoader) -> list[tuple]:
    seen = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        seen += content(stream)
    return seen


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(annotations, workers):
    cache = ImageCache(1, COUNT)
    assert_equal(
        two_epochs(loader(annotations)), two_epochs(loader(annotations, workers=workers, cache=cache))
    )
    assert len(cache) == COUNT


def test_another_seed_gives_other_batches(annotations):
    first, other = (two_epochs(loader(annotations, seed=seed)) for seed in (0, 1))
    assert [entry[0] for entry in first] != [entry[0] for entry in other]


def test_starting_a_loader_draws_nothing_from_the_global_stream(annotations):
    state = torch.get_rng_state()
    list(loader(annotations))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_loader_goes_on_and_reads_nothing_twice(annotations, stop, monkeypatch):
    whole = content(loader(annotations))
    stopped = loader(annotations)
    stream = iter(stopped)
    for _ in range(stop):
        next(stream)
    resumed = loader(annotations)
    resumed.load_state_dict(stopped.state_dict())
    read = []
    original = pictures.read_pixels
    monkeypatch.setattr(pictures, "read_pixels", lambda path, side: read.append(path) or original(path, side))
    assert_equal(content(resumed), whole[stop:])
    assert len(read) <= 4 * BATCH * (len(whole) - stop)


def test_the_state_after_the_last_batch_is_the_next_epoch(annotations):
    stream = loader(annotations)
    stream.set_epoch(4)
    list(stream)
    assert stream.state_dict() == {"epoch": 5, "batch": 0}


def test_the_user_s_count_of_batches_leads(annotations):
    dataset = DetectionDataset(annotations, image_size=(32, 32))
    sampler = EvaluationSampler(COUNT, BATCH)
    assert StatefulLoader(dataset, sampler, progress=lambda: 2).state_dict() == {"epoch": 0, "batch": 2}
    assert StatefulLoader(dataset, sampler, progress=lambda: None).state_dict() == {"epoch": 0, "batch": 0}


def test_a_damaged_picture_is_named_from_within_a_worker(tmp_path):
    annotations = drawn_set(tmp_path, count=4, size=(64, 48), suffix="jpg")
    annotations.file(2).write_bytes(annotations.file(2).read_bytes()[:-200])
    dataset = DetectionDataset(annotations, image_size=(64, 64))
    with pytest.raises(DataError, match=r"picture 2 of the data set: .*picture_2\.jpg"):
        list(StatefulLoader(dataset, EvaluationSampler(4, 2), workers=1))


class Dying(DetectionDataset):
    """Kills the process that asks for picture 5."""

    def sample(self, epoch, index, size=None):
        made = super().sample(epoch, index, size)
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return made


def test_a_dead_worker_is_named_with_the_picture_it_had_opened(annotations):
    dataset = Dying(annotations, image_size=(64, 64))
    with pytest.raises(
        RuntimeError, match=r"worker \d died; the last picture it opened is 5 \(.*picture_5\.png\)"
    ):
        list(StatefulLoader(dataset, EvaluationSampler(COUNT, BATCH), workers=2))


class Recorder(pl.LightningModule):
    """Notes the pictures of every step and stops the run where it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_at, self.seen, self.validated = stop_at, [], 0

    def training_step(self, batch, number):
        if self.global_step == self.stop_at:
            raise KeyError("stopped")
        self.seen.append((batch.index.tolist(), float(batch.images.float().mean())))
        return self.weight * batch.images.float().mean()

    def validation_step(self, batch, number):
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEveryStep(pl.Callback):
    """Writes a checkpoint after every step."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
        trainer.save_checkpoint(self.path)


def fit(annotations, path, *, stop_at=None, resume=False) -> Recorder:
    module = Recorder(stop_at)
    stream = loader(annotations)
    dataset = DetectionDataset(annotations, image_size=(32, 32))
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[SaveEveryStep(path)],
    )
    stream.progress = lambda: trainer.fit_loop.epoch_loop.batch_progress.current.ready
    validation = StatefulLoader(dataset, EvaluationSampler(COUNT, BATCH))
    trainer.fit(
        module, stream, validation, ckpt_path=path if resume else None, weights_only=False if resume else None
    )
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_the_trainer_goes_on_with_the_batch_that_follows_its_checkpoint(annotations, tmp_path, stop_at):
    whole = fit(annotations, tmp_path / "whole.ckpt")
    assert len(whole.seen) == 3 * COUNT // BATCH
    with pytest.raises(KeyError):
        fit(annotations, tmp_path / "cut.ckpt", stop_at=stop_at)
    resumed = fit(annotations, tmp_path / "cut.ckpt", resume=True)
    assert resumed.seen == whole.seen[stop_at:]
    assert resumed.validated == (12 if stop_at < 4 else 8)  # four batches after each epoch that was not over
