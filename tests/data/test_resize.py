"""Pictures at a length of their shorter side: sizes, padding, groups, and the way back to the file."""

import numpy as np
import pytest
import torch
from drawn_set import assert_boxes_follow_pixels, drawn_set

from boxmatch.data.annotations import Annotations, concatenate
from boxmatch.data.dataset import BatchKey, DetectionDataset
from boxmatch.data.loader import StatefulLoader
from boxmatch.data.module import DataModule
from boxmatch.data.resize import ShortSide
from boxmatch.data.sampler import EvaluationSampler, TrainSampler
from boxmatch.data.shapes import draw_shapes
from boxmatch.data.transforms import Augment

FLIP = Augment(mosaic_p=0, randscale_p=0, color_p=0)
RESIZE = ShortSide(64, 100, train_short_side=(40, 72))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory) -> Annotations:
    """Six wide and four tall pictures."""
    folder = tmp_path_factory.mktemp("drawn")
    wide = drawn_set(folder, 6, (160, 120))
    return concatenate([wide, drawn_set(folder, 4, (90, 150), suffix="bmp")])


def dataset(annotations: Annotations, **options) -> DetectionDataset:
    return DetectionDataset(annotations, image_size=(416, 416), resize=RESIZE, **options)


@pytest.mark.parametrize(
    "picture, size",
    [
        ((640, 480), (1066, 800)),  # 1066.7, cut
        ((480, 640), (800, 1066)),
        ((640, 360), (1333, 750)),  # 800 would make 1422
        ((500, 500), (800, 800)),
        ((3000, 2000), (1200, 800)),
        ((10000, 2), (5000, 1)),  # no side vanishes
    ],
)
def test_sizes_are_those_of_the_published_detectors(picture, size):
    assert ShortSide().size(picture, 800) == size


def test_every_length_of_the_range_is_drawn_and_nothing_else():
    random = np.random.default_rng(0)
    drawn = [ShortSide(train_short_side=(640, 644)).drawn(random) for _ in range(500)]
    counts = np.bincount(drawn)[640:]
    assert len(counts) == 5 and (counts > 70).all()
    assert ShortSide(600).drawn(random) == 600


@pytest.mark.parametrize(
    "options, message",
    [
        ({"train_short_side": (800, 640)}, "low <= high"),
        ({"train_short_side": (0, 640)}, "low <= high"),
        ({"short_side": 1400}, "long_side"),
        ({"train_short_side": (640, 1400)}, "long_side"),
    ],
)
def test_lengths_that_make_no_size_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ShortSide(**options)


def test_evaluation_pads_to_the_right_and_bottom_and_leads_back_to_the_file(annotations):
    batch = dataset(annotations, fill=(10, 20, 30))[BatchKey(0, (0, 7))]
    # 85 × 64 and, because 64 would make 106, 60 × 100.
    assert batch.size == (96, 128)
    for number, (index, width, height) in enumerate([(0, 85, 64), (7, 60, 100)]):
        for outside in (batch.images[number, :, height:], batch.images[number, :, :, width:]):
            assert (outside == torch.tensor([10, 20, 30])[:, None, None]).all()
        restored = batch.restore_boxes(batch.targets.boxes[batch.targets.image == number], number)
        expected = annotations.boxes[annotations.rows(index)]
        np.testing.assert_allclose(restored.numpy(), expected, atol=1e-3)
    assert batch.original_size.tolist() == [[160, 120], [90, 150]]


@pytest.mark.parametrize("augment", [None, FLIP])
def test_boxes_follow_the_pixels(annotations, augment):
    samples = [dataset(annotations, augment=augment).sample(0, index) for index in range(10)]
    for sample in samples:
        assert_boxes_follow_pixels(sample)


def test_a_training_picture_has_a_size_and_a_direction_of_its_own_in_every_epoch(annotations):
    made = dataset(annotations, augment=FLIP, seed=4)
    shorter = [min(made.sample(epoch, 0).image.shape[1:]) for epoch in range(60)]
    assert min(shorter) >= 40 and max(shorter) <= 72 and len(set(shorter)) > 15
    again = dataset(annotations, augment=FLIP, seed=4)
    assert torch.equal(made.sample(7, 3).image, again.sample(7, 3).image)
    still = dataset(annotations, augment=Augment(mosaic_p=0, randscale_p=0, color_p=0, h_flip=0), seed=4)
    flips = [
        torch.equal(made.sample(epoch, 0).image, still.sample(epoch, 0).image.flip(2)) for epoch in range(60)
    ]
    assert 0.3 < np.mean(flips) < 0.7


def loader(annotations: Annotations, workers: int) -> StatefulLoader:
    groups = (annotations.sizes[:, 0] > annotations.sizes[:, 1]).astype(np.int64)
    sampler = TrainSampler(len(annotations), 2, image_size=(416, 416), groups=groups)
    return StatefulLoader(dataset(annotations, augment=FLIP), sampler, workers=workers)


def test_workers_change_nothing_and_batches_are_wide_or_tall(annotations):
    batches = {workers: list(loader(annotations, workers)) for workers in (0, 1, 2)}
    assert len(batches[0]) == 5
    for workers in (1, 2):
        for one, other in zip(batches[0], batches[workers], strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets.boxes, other.targets.boxes)
    for batch in batches[0]:
        assert len({bool(width > height) for width, height in batch.original_size.tolist()}) == 1
        assert batch.size[0] % 32 == batch.size[1] % 32 == 0


def test_evaluation_batches_of_all_shapes_show_every_picture(annotations):
    batches = list(StatefulLoader(dataset(annotations), EvaluationSampler(10, 4)))
    assert [index for batch in batches for index in batch.index.tolist()] == list(range(10))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return str(draw_shapes(tmp_path_factory.mktemp("shapes"), train=8, val=3, size=64))


def test_the_module_hands_the_rule_to_every_split(root):
    data = DataModule(root, resize=ShortSide(48, 80), augment=FLIP, batch_size=4)
    for stream in (data.train_dataloader(), data.val_dataloader()):
        assert {batch.size for batch in stream} == {(64, 64)}
        assert {round(float(scale), 2) for batch in data.val_dataloader() for scale in batch.scale[:, 0]} == {
            0.75
        }


def test_what_moves_pictures_does_not_go_with_the_rule(root):
    with pytest.raises(ValueError, match=r"augment\.mosaic_p, augment\.randscale_p"):
        DataModule(root, resize=ShortSide())
    with pytest.raises(ValueError, match="train_short_side"):
        DataModule(root, resize=ShortSide(), augment=FLIP, multi_scale=(64, 128))


def test_crowds_are_ignored_or_dropped_in_training_only(data_dir):
    pictures = "annotations/instances_train2017.json"
    options = {"format": "coco", "train": pictures, "val": pictures}
    kept, dropped = (
        DataModule(str(data_dir / "coco_mini"), crowd=crowd, **options) for crowd in ("ignore", "drop")
    )
    marked = kept.annotations("train").ignore
    assert marked.sum() == 2
    assert len(dropped.annotations("train").ignore) == len(marked) - 2
    assert dropped.annotations("val").ignore.sum() == 2
