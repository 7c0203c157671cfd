"""Batches: how samples become one, and the way back to the files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from boxmatch.data.batch import Sample, collate, restore_boxes
from boxmatch.structures import Detections


def sample(index: int, boxes: int, size: int = 8, scale: float = 0.5) -> Sample:
    return Sample(
        image=torch.full((3, size, size), index, dtype=torch.uint8),
        boxes=np.tile(np.array([[1, 2, 3, 4]], np.float32), (boxes, 1)),
        labels=np.full(boxes, index, dtype=np.int64),
        ignore=np.arange(boxes) == 1,
        index=index,
        image_id=index + 10,
        original_size=(20, 12),
        scale=(scale, scale),
        offset=(1.0, 0.0),
    )


def test_boxes_are_laid_end_to_end_with_the_number_of_their_picture():
    batch = collate([sample(4, 2), sample(7, 0), sample(2, 1)])
    assert batch.images.shape == (3, 3, 8, 8) and batch.images.dtype == torch.uint8
    assert batch.targets.image.tolist() == [0, 0, 2]
    assert batch.targets.labels.tolist() == [4, 4, 2]
    assert batch.targets.ignore.tolist() == [False, True, False]
    assert (batch.targets.batch_size, len(batch), batch.size) == (3, 3, (8, 8))
    assert batch.index.tolist() == [4, 7, 2] and batch.image_id.tolist() == [14, 17, 12]


def test_a_batch_without_any_box_is_a_batch():
    targets = collate([sample(0, 0), sample(1, 0)]).targets
    assert targets.boxes.shape == (0, 4) and targets.labels.dtype == torch.int64
    targets.check()


def test_a_padded_batch_knows_the_size_of_each_picture():
    tall = replace(sample(1, 1), image=torch.zeros((3, 12, 6), dtype=torch.uint8))
    batch = collate([sample(0, 1), tall], pad_to=8)
    assert batch.images.shape == (2, 3, 16, 8)
    assert batch.picture_sizes.tolist() == [[8, 8], [12, 6]]


def test_pictures_of_two_sizes_make_no_batch():
    with pytest.raises(ValueError, match="pictures of one size"):
        collate([sample(0, 1), sample(1, 1, size=16)])


def test_no_pictures_make_no_batch():
    with pytest.raises(ValueError, match="pictures of one size"):
        collate([])


def test_boxes_are_mapped_back_and_clipped_to_the_file():
    boxes = torch.tensor([[1.0, 0.0, 3.0, 4.0], [-5.0, -5.0, 50.0, 50.0]])
    scale, offset, size = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]), torch.tensor([20, 12])
    restored = restore_boxes(boxes, scale, offset, size)
    assert restored.tolist() == [[0, 0, 4, 8], [0, 0, 20, 12]]


def test_detections_of_all_pictures_are_restored():
    found = Detections(torch.tensor([[1.0, 0.0, 3.0, 4.0]]), torch.tensor([0.9]), torch.tensor([1]))
    restored = collate([sample(0, 1), sample(1, 1)]).restore([found, found])
    assert [one.boxes.tolist() for one in restored] == [[[0, 0, 4, 8]]] * 2


def test_what_was_augmented_has_no_way_back():
    batch = collate([sample(0, 1), sample(9, 1, scale=float("nan"))])
    batch.restore_boxes(torch.zeros((0, 4)), 0)
    with pytest.raises(ValueError, match=r"picture 1 of the batch \(index 9\)"):
        batch.restore_boxes(torch.zeros((0, 4)), 1)


def test_moving_a_batch_moves_pictures_and_boxes():
    moved = collate([sample(0, 2)]).to("meta")
    assert moved.images.device.type == moved.targets.boxes.device.type == "meta"
    assert moved.scale.device.type == "cpu"
