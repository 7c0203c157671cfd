"""The data module: splits found and checked, loaders for plain loops and for the Trainer."""

import shutil

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from boxmatch.data.module import DataModule
from boxmatch.data.shapes import draw_shapes
from boxmatch.data.transforms import Augment
from boxmatch.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(draw_shapes(tmp_path_factory.mktemp("shapes"), train=12, val=5, size=64))


def module(root: str, **options) -> DataModule:
    return DataModule(root, **{"image_size": 64, "batch_size": 4, "min_label_area": 0, **options})


def test_a_plain_loop_needs_nothing_but_the_folder(root):
    data = module(root)
    assert data.class_names == ("circle", "square", "triangle")
    batches = list(data.train_dataloader())
    assert len(batches) == 3 and all(batch.images.shape == (4, 3, 64, 64) for batch in batches)
    shown = [index for batch in data.val_dataloader() for index in batch.index.tolist()]
    assert shown == list(range(5))


def test_the_order_and_the_augmentation_follow_from_the_seed(root):
    first, again, other = (next(iter(module(root, seed=seed).train_dataloader())) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_evaluation_boxes_lead_back_to_the_annotations(root):
    data = module(root)
    annotations = data.annotations("val")
    for batch in data.val_dataloader():
        for number, index in enumerate(batch.index.tolist()):
            restored = batch.restore_boxes(batch.targets.boxes[batch.targets.image == number], number)
            np.testing.assert_allclose(
                restored.numpy(), annotations.boxes[annotations.rows(index)], atol=1e-3
            )


def test_a_split_that_is_not_there_is_named_with_those_that_are(root):
    with pytest.raises(DataError, match=r"no split 'test', only \['train', 'val'\]"):
        module(root).test_dataloader()


def test_a_named_split_may_be_any_image_set(root):
    data = module(root, train="val", val="train", test="train")
    assert [len(data.annotations(split)) for split in ("train", "val", "test")] == [5, 12, 12]


def test_given_class_names_lead(root):
    names = ["triangle", "circle", "square", "star"]
    data = module(root, class_names=names)
    assert data.class_names == tuple(names)
    assert data.annotations("val").class_names == tuple(names)


def test_objects_at_or_below_the_smallest_area_are_left_out_of_every_split(root):
    whole, filtered = module(root), module(root, min_label_area=150)
    for split in ("train", "val"):
        annotations = whole.annotations(split)
        sides = annotations.boxes[:, 2:] - annotations.boxes[:, :2]
        assert 0 < (sides.prod(1) > 150).sum() < len(sides)
        assert len(filtered.annotations(split).boxes) == (sides.prod(1) > 150).sum()
        assert len(filtered.annotations(split)) == len(annotations)


def test_empty_pictures_can_be_left_out_of_training(root):
    options = {"min_label_area": 600}  # leaves some pictures without any object
    kept, left = module(root, **options), module(root, keep_empty=False, **options)
    counts = np.diff(kept.annotations("train").offsets)
    assert (counts == 0).any()
    assert len(left.annotations("train")) == (counts > 0).sum()
    assert len(left.annotations("val")) == 5


def test_data_that_cannot_be_used_is_refused_after_all_of_it_was_looked_at(root, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    picture = next(broken.rglob("JPEGImages/*"))
    picture.write_bytes(b"no picture")
    data = module(str(broken))
    assert data.check().errors == 1
    with pytest.raises(DataError, match=picture.name):
        data.train_dataloader()


def test_mosaic_closes_at_the_end_of_a_run_of_known_length(root):
    data = module(root, augment=Augment(close_mosaic_epochs=2))
    assert data.train_dataloader(max_epochs=10).dataset.mosaic_epochs == 8
    assert data.train_dataloader().dataset.mosaic_epochs is None
    assert module(root).train_dataloader(max_epochs=10).dataset.mosaic_epochs is None


def test_pictures_are_kept_in_the_size_of_the_largest_scale(root):
    data = module(root, multi_scale=(32, 96), augment=Augment(), cache_mb=1)
    stream = data.train_dataloader()
    assert stream.dataset.pictures.side == 192  # twice 96: the strongest zoom
    sizes = {batch.size for epoch in range(4) for batch in (stream.set_epoch(epoch), *stream)[1:]}
    assert sizes == {(32, 32), (64, 64), (96, 96)}
    assert len(stream.dataset.pictures.cache) == 12


def test_evaluation_pictures_are_not_kept_larger_than_the_input(root):
    assert module(root).val_dataloader().dataset.pictures.side == 64


def test_width_and_height_may_differ(root):
    batch = next(iter(module(root, image_size=(96, 64)).train_dataloader()))
    assert batch.images.shape == (4, 3, 64, 96)


@pytest.mark.parametrize(
    "option, value",
    [
        ("image_size", 100),
        ("image_size", (64, 0)),
        ("batch_size", 0),
        ("workers", -1),
        ("cache_mb", -1),
        ("fill", 256),
        ("min_label_area", -1),
        ("seed", -1),
        ("multi_scale", (40, 60)),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        DataModule("nowhere", **{option: value})


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        DataModule(str(tmp_path / "nowhere")).check()


class Counter(pl.LightningModule):
    """Counts what the Trainer gives it, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_indices, self.val_indices = [], []

    def training_step(self, batch, number):
        self.train_indices.append((self.current_epoch, tuple(batch.index.tolist())))
        return self.weight * batch.images.float().mean()

    def validation_step(self, batch, number):
        self.val_indices += batch.index.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_tells_the_epoch_and_the_length_of_the_run(root):
    data, counter = module(root, augment=Augment(close_mosaic_epochs=1)), Counter()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(counter, datamodule=data)
    assert trainer.train_dataloader.dataset.mosaic_epochs == 1
    plain = module(root).train_dataloader()
    expected = []
    for epoch in range(2):
        plain.set_epoch(epoch)
        expected += [(epoch, key.indices) for key in plain.sampler]
    assert counter.train_indices == expected
    assert counter.val_indices == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_the_blood_cells_load_in_every_layout(data_dir, layout):
    data = DataModule(str(data_dir / "bccd"), format=layout, image_size=160, batch_size=8)
    assert data.class_names == ("RBC", "WBC", "Platelets")
    assert [len(data.annotations(split)) for split in ("train", "val", "test")] == [205, 87, 72]
    assert data.check().errors == 0
    assert (
        len(data.annotations("train").boxes) == 2804
    )  # one of the two boxes without extent is in this split
    batch = next(iter(data.train_dataloader()))
    batch.targets.check(num_classes=3)
    assert len(batch.targets) > 40
