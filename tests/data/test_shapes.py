"""The built-in set: the same files for the same seed, boxes that fit their shapes, all kinds of scenes."""

import numpy as np
import pytest
from PIL import Image

from boxmatch.data.load import load_splits
from boxmatch.data.shapes import SHAPES, draw_scene, draw_shapes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = draw_shapes(tmp_path_factory.mktemp("shapes"), train=60, val=20, size=96)
    return folder, *load_splits(folder)


def test_the_set_is_read_without_problems(drawn):
    _, splits, report = drawn
    assert (len(splits["train"]), len(splits["val"])) == (60, 20)
    assert report.class_names == ("circle", "square", "triangle")
    assert dict(report.counts) == {}
    assert min(report.splits["train"].per_class) > 40


def test_there_are_empty_and_crowded_pictures_small_and_overlapping_shapes(drawn):
    train = drawn[1]["train"]
    counts = np.diff(train.offsets)
    assert counts.min() == 0 and counts.max() >= 10
    assert np.sqrt(train.areas).min() < 10 and np.sqrt(train.areas).max() > 30
    overlaps = 0
    for image in range(len(train)):
        boxes = train.boxes[train.rows(image)]
        width = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(
            boxes[:, None, :2], boxes[None, :, :2]
        )
        overlaps += int((width.min(2) > 0).sum()) - len(boxes)
    assert overlaps > 20


def test_the_same_seed_gives_the_same_files_and_another_one_does_not(tmp_path):
    same = [draw_shapes(tmp_path / name, train=3, val=1, size=64, seed=7) for name in "ab"]
    other = draw_shapes(tmp_path / "c", train=3, val=1, size=64, seed=8)
    files = sorted(file.relative_to(same[0]) for file in same[0].rglob("*") if file.is_file())
    assert len(files) == 12
    assert all((same[0] / file).read_bytes() == (same[1] / file).read_bytes() for file in files)
    assert any((same[0] / file).read_bytes() != (other / file).read_bytes() for file in files)


def test_a_picture_stays_the_same_when_more_are_drawn(tmp_path):
    few, many = (draw_shapes(tmp_path / str(train), train=train, val=0, size=64) for train in (2, 5))
    for part in ("JPEGImages/000002.jpg", "Annotations/000002.xml"):
        assert (few / "VOC2007" / part).read_bytes() == (many / "VOC2007" / part).read_bytes()


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_enclose_their_shape_tightly(name):
    """What differs from the background lies in the box and reaches its ends, but for thin tips."""
    slack = 2 if name in ("circle", "square") else 4
    tight = 0
    for seed in range(40):
        image, shapes = draw_scene(np.random.default_rng(seed), 96, [name])
        if len(shapes) != 1:
            continue
        x1, y1, x2, y2 = shapes[0].box
        pixels = np.asarray(image).astype(int)
        ground = np.median(
            np.concatenate([pixels[:, :x1].reshape(-1, 3), pixels[:, x2:].reshape(-1, 3)]), axis=0
        )
        rows, columns = np.nonzero(np.abs(pixels - ground).max(2) > 70)
        assert x1 <= columns.min() and columns.max() < x2 and y1 <= rows.min() and rows.max() < y2
        assert columns.min() - x1 <= slack and x2 - 1 - columns.max() <= slack
        tight += 1
    assert tight >= 2


def test_the_pictures_have_the_size_asked_for(drawn):
    assert Image.open(drawn[1]["train"].file(0)).size == (96, 96)


@pytest.mark.parametrize("options", [{"shapes": ["hexagon"]}, {"shapes": []}, {"size": 63}, {"train": -1}])
def test_what_cannot_be_drawn_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="expected shapes"):
        draw_shapes(tmp_path, **options)
