"""Flat annotations: names, slices, joins, class tables, and memory that is shared with other processes."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from boxmatch.data.annotations import Annotations, concatenate, from_columns
from boxmatch.errors import DataError


def three_pictures(root: str = "data", class_names: tuple[str, ...] = ("cat", "dog")) -> Annotations:
    """Pictures with 2, 0 and 1 boxes; the boxes are given out of order."""
    return from_columns(
        Path(root),
        names=["a.jpg", "sub/ö.jpg", "c.jpg"],
        sizes=np.array([[10, 20], [30, 40], [-1, -1]]),
        image_of_box=np.array([2, 0, 0]),
        boxes=np.array([[0, 0, 3, 3], [0, 0, 1, 2], [1, 1, 4, 4.0]]),
        labels=np.array([1, 0, 1]),
        ignore=np.array([False, False, True]),
        object_ids=np.array([7, 8, 9]),
        class_names=class_names,
    )


def test_boxes_are_grouped_by_picture_in_the_order_given():
    annotations = three_pictures()
    assert annotations.offsets.tolist() == [0, 2, 2, 3]
    assert annotations.object_ids.tolist() == [8, 9, 7]
    assert annotations.image_index().tolist() == [0, 0, 2]
    assert annotations.boxes[annotations.rows(1)].shape == (0, 4)


def test_areas_are_width_times_height_unless_given():
    assert three_pictures().areas.tolist() == [2, 9, 9]


def test_a_file_name_is_found_by_position():
    annotations = three_pictures("somewhere")
    assert annotations.name(1) == "sub/ö.jpg"
    assert annotations.file(2) == Path("somewhere/c.jpg")


def test_class_counts_leave_ignore_regions_out():
    assert three_pictures().class_counts().tolist() == [1, 1]


@pytest.mark.parametrize("index", [np.array([True, False, True]), [0, 2]])
def test_selected_pictures_bring_their_boxes_and_names(index):
    chosen = three_pictures().select_images(index)
    assert [chosen.name(i) for i in range(len(chosen))] == ["a.jpg", "c.jpg"]
    assert chosen.offsets.tolist() == [0, 2, 3]
    assert chosen.labels.tolist() == [0, 1, 1]


def test_pictures_can_be_selected_in_another_order_and_twice():
    chosen = three_pictures().select_images([2, 0, 2])
    assert chosen.object_ids.tolist() == [7, 8, 9, 7]
    assert chosen.name(2) == "c.jpg"


def test_selecting_boxes_keeps_every_picture():
    chosen = three_pictures().select_boxes(np.array([False, False, True]))
    assert chosen.offsets.tolist() == [0, 0, 0, 1]
    assert len(chosen) == 3


def test_another_class_table_renumbers_by_name():
    renamed = three_pictures().with_classes(["bird", "dog", "cat"])
    assert renamed.labels.tolist() == [2, 1, 1]
    assert renamed.class_ids == (3, 2, 1)


def test_a_class_table_without_a_class_that_has_boxes_is_refused():
    with pytest.raises(DataError, match="dog"):
        three_pictures().with_classes(["cat"])


def test_a_class_without_boxes_may_leave_the_table():
    assert three_pictures(class_names=("cat", "dog", "emu")).with_classes(["cat", "dog"]).class_names == (
        "cat",
        "dog",
    )


def test_joined_sets_keep_names_boxes_and_classes():
    joined = concatenate([three_pictures(), three_pictures(class_names=("dog", "emu"))])
    assert joined.class_names == ("cat", "dog", "emu")
    assert joined.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert joined.offsets.tolist() == [0, 2, 2, 3, 5, 5, 6]
    assert joined.name(4) == "sub/ö.jpg"


def test_image_ids_that_clash_become_positions():
    assert concatenate([three_pictures(), three_pictures()]).image_ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_sets_of_different_roots_are_not_joined():
    with pytest.raises(DataError, match="one root"):
        concatenate([three_pictures("a"), three_pictures("b")])


def test_nothing_cannot_be_joined():
    with pytest.raises(ValueError, match="got none"):
        concatenate([])


def test_a_set_without_pictures_has_all_arrays():
    empty = three_pictures().select_images([])
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.class_counts().tolist() == [0, 0]


def test_pickling_brings_everything_back():
    before = three_pictures()
    after = pickle.loads(pickle.dumps(before))
    assert after.name(1) == before.name(1)
    assert np.array_equal(after.boxes, before.boxes)
    assert after.class_names == before.class_names


def test_shared_arrays_hold_the_same_numbers():
    before = three_pictures()
    shared = before.share()
    assert np.array_equal(shared.boxes, before.boxes)
    assert np.array_equal(shared.names, before.names)


def _double_the_boxes(annotations: Annotations) -> None:
    annotations.boxes[:] *= 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_writes_into_the_same_memory(method):
    shared = three_pictures().share()
    process = multiprocessing.get_context(method).Process(target=_double_the_boxes, args=(shared,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert shared.boxes.tolist() == (three_pictures().boxes * 2).tolist()
