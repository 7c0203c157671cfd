"""Samples: boxes on their pixels after every transform, and the same sample whoever asks."""

import pickle

import numpy as np
import pytest
import torch
from drawn_set import assert_boxes_follow_pixels, drawn_set

from boxmatch.data.batch import Sample
from boxmatch.data.cache import ImageCache
from boxmatch.data.dataset import BatchKey, DetectionDataset
from boxmatch.data.transforms import Augment
from boxmatch.errors import DataError

OFF = {"mosaic_p": 0.0, "randscale_p": 0.0, "color_p": 0.0, "h_flip": 0.0, "min_visibility": 0.0}


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return drawn_set(tmp_path_factory.mktemp("drawn"), count=6)


def equal(one: Sample, other: Sample) -> bool:
    return torch.equal(one.image, other.image) and np.array_equal(one.boxes, other.boxes)


@pytest.mark.parametrize(
    "options, filled",
    [
        ({}, True),
        ({"mosaic_p": 1.0}, True),
        ({"mosaic_p": 1.0, "randscale_p": 1.0}, True),
        ({"mosaic_p": 1.0, "mosaic_jitter": 0.5}, True),
        ({"randscale_p": 1.0, "h_flip": 1.0}, True),
        ({"v_flip": 1.0}, True),
        ({"rot90_p": 1.0}, True),
        ({"mosaic_p": 1.0, "rot90_p": 0.7, "h_flip": 0.5, "v_flip": 0.5, "randscale_p": 0.5}, True),
        ({"rotate_p": 1.0}, False),
        ({"perspective_p": 1.0}, False),
        ({"mosaic_p": 1.0, "rotate_p": 1.0, "perspective_p": 1.0, "randscale_p": 1.0}, False),
    ],
)
@pytest.mark.parametrize("size", [(128, 128), (192, 96)])
def test_boxes_follow_the_pixels_through(annotations, options, filled, size):
    dataset = DetectionDataset(annotations, image_size=size, augment=Augment(**{**OFF, **options}))
    for index in range(6):
        assert_boxes_follow_pixels(dataset.sample(0, index), filled=filled)


@pytest.mark.parametrize("size", [(32, 24), (640, 480), (150, 700)])
def test_boxes_follow_the_pixels_of_small_and_large_files(tmp_path, size):
    annotations = drawn_set(tmp_path, count=4, size=size, suffix="jpg")
    dataset = DetectionDataset(
        annotations, image_size=(128, 128), augment=Augment(**{**OFF, "mosaic_p": 1.0})
    )
    for index in range(4):
        assert_boxes_follow_pixels(dataset.sample(0, index), margin=max(1.5, 128 / min(size)))


def test_boxes_of_the_file_come_back_from_a_letterboxed_picture(annotations):
    for size in ((96, 96), (200, 72), (64, 160)):
        batch = DetectionDataset(annotations, image_size=size)[BatchKey(0, (0, 3))]
        for number, index in enumerate((0, 3)):
            restored = batch.restore_boxes(batch.targets.boxes[batch.targets.image == number], number)
            expected = annotations.boxes[annotations.rows(index)]
            np.testing.assert_allclose(restored.numpy(), expected, atol=1e-3)
        assert batch.image_id.tolist() == [100, 103]
        assert batch.original_size.tolist() == [[160, 120], [160, 120]]


def test_boxes_follow_the_pixels_of_a_letterboxed_picture(annotations):
    dataset = DetectionDataset(annotations, image_size=(96, 200))
    for index in range(6):
        assert_boxes_follow_pixels(dataset.sample(0, index))


def test_a_sample_depends_on_seed_epoch_and_index_alone(annotations):
    one = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(), seed=3)
    other = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(), seed=3)
    forwards = [one.sample(2, index) for index in range(6)]
    torch.manual_seed(17)
    np.random.seed(17)
    backwards = [other.sample(2, index) for index in reversed(range(6))][::-1]
    assert all(equal(*pair) for pair in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("seed, epoch, index", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_another_seed_epoch_or_index_gives_another_sample(annotations, seed, epoch, index):
    first = DetectionDataset(annotations, image_size=(96, 96), augment=Augment()).sample(0, 0)
    second = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(), seed=seed).sample(
        epoch, index
    )
    assert not equal(first, second)


def test_a_cache_changes_nothing_but_the_time(annotations):
    plain = DetectionDataset(annotations, image_size=(96, 96), augment=Augment())
    cache = ImageCache(1, len(annotations))
    cached = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(), cache=cache)
    for _ in range(2):
        assert all(equal(plain.sample(0, index), cached.sample(0, index)) for index in range(6))
    assert len(cache) == 6


def test_a_copy_that_went_through_a_pipe_gives_the_same_samples(annotations):
    dataset = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(), cache=ImageCache(1, 6))
    copy = pickle.loads(pickle.dumps(dataset))
    assert equal(dataset.sample(1, 4), copy.sample(1, 4))


def test_flips_and_colours_come_in_their_shares(annotations):
    still = DetectionDataset(annotations, image_size=(64, 64), augment=Augment(**OFF))
    flipped = DetectionDataset(annotations, image_size=(64, 64), augment=Augment(**{**OFF, "h_flip": 0.5}))
    colored = DetectionDataset(annotations, image_size=(64, 64), augment=Augment(**{**OFF, "color_p": 0.5}))
    plain = still.sample(0, 0).image
    flips = [torch.equal(flipped.sample(epoch, 0).image, plain.flip(2)) for epoch in range(120)]
    changes = [not torch.equal(colored.sample(epoch, 0).image, plain) for epoch in range(120)]
    assert 0.37 < np.mean(flips) < 0.63
    assert 0.37 < np.mean(changes) < 0.63


def test_mosaic_stops_at_its_last_epoch(annotations):
    options = Augment(**{**OFF, "mosaic_p": 1.0})
    dataset = DetectionDataset(annotations, image_size=(96, 96), augment=options, mosaic_epochs=5)
    single = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(**OFF))
    assert not torch.equal(dataset.sample(4, 0).image, single.sample(4, 0).image)
    assert torch.equal(dataset.sample(5, 0).image, single.sample(5, 0).image)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sets_of_fewer_than_four_pictures_make_mosaics(tmp_path, count):
    dataset = DetectionDataset(drawn_set(tmp_path, count), image_size=(96, 96), augment=Augment(color_p=0))
    for index in range(count):
        assert_boxes_follow_pixels(dataset.sample(0, index))


def test_a_picture_without_objects_gives_no_boxes(annotations):
    empty = annotations.select_boxes(np.zeros(len(annotations.labels), dtype=bool))
    for augment in (None, Augment()):
        batch = DetectionDataset(empty, image_size=(64, 64), augment=augment)[BatchKey(0, (0, 1))]
        assert batch.targets.boxes.shape == (0, 4)
        assert batch.targets.batch_size == 2
        batch.targets.check()


def test_targets_of_augmented_batches_are_fit_for_training(annotations):
    options = Augment(rotate_p=0.3, perspective_p=0.3, rot90_p=0.3, v_flip=0.5, mosaic_jitter=0.5, hue=0.1)
    dataset = DetectionDataset(annotations, image_size=(96, 64), augment=options, min_area=10)
    for epoch in range(10):
        batch = dataset[BatchKey(epoch, tuple(range(6)))]
        batch.targets.check(num_classes=3)
        assert (batch.targets.boxes >= 0).all()
        assert (batch.targets.boxes[:, 2:] <= torch.tensor([96, 64])).all()
        extent = batch.targets.boxes[:, 2:] - batch.targets.boxes[:, :2]
        assert (extent.prod(1) >= 10).all()


def test_ignore_regions_travel_with_their_boxes(annotations):
    ignored = annotations.select_boxes(np.ones(len(annotations.labels), dtype=bool))
    ignored.ignore[ignored.labels == 1] = True
    sample = DetectionDataset(ignored, image_size=(96, 96), augment=Augment()).sample(0, 0)
    np.testing.assert_array_equal(sample.ignore, sample.labels == 1)


def test_a_batch_may_have_another_size_than_the_set(annotations):
    dataset = DetectionDataset(annotations, image_size=(96, 96), augment=Augment(color_p=0), largest_side=160)
    batch = dataset[BatchKey(0, (1, 2), (160, 128))]
    assert batch.size == (160, 128)
    assert_boxes_follow_pixels(dataset.sample(0, 1, (160, 128)))


def test_the_fill_value_is_what_surrounds_a_picture(annotations):
    image = DetectionDataset(annotations, image_size=(96, 96), fill=114).sample(0, 0).image
    assert (image[:, :12] == 114).all() and (image[:, -12:] == 114).all()


def test_an_augmented_picture_has_no_way_back(annotations):
    batch = DetectionDataset(annotations, image_size=(96, 96), augment=Augment())[BatchKey(0, (5,))]
    with pytest.raises(ValueError, match=r"index 5.* was augmented"):
        batch.restore_boxes(batch.targets.boxes, 0)


def test_an_index_beyond_the_set_is_refused(annotations):
    with pytest.raises(IndexError, match="picture 6 of 6"):
        DetectionDataset(annotations, image_size=(96, 96)).sample(0, 6)


def test_a_damaged_file_is_named_with_its_number(tmp_path):
    annotations = drawn_set(tmp_path, 4, suffix="jpg")
    file = annotations.file(2)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"picture 2 of the data set.*picture_2\.jpg"):
        DetectionDataset(annotations, image_size=(96, 96)).sample(0, 2)
