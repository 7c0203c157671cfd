"""The COCO reader: ids with gaps, crowd, order of the lists, folders of pictures."""

import json

import pytest
from folders import TWO, coco_content, write_coco, write_picture

from boxmatch.data.coco import read_coco
from boxmatch.data.problems import ProblemLog
from boxmatch.errors import DataError

FILE = "annotations/instances_train.json"


def read(tmp_path, content, log=None):
    return read_coco(write_coco(tmp_path, content), FILE, log=log)


def test_width_and_height_become_corners(tmp_path):
    annotations = read(tmp_path, None)
    assert annotations.boxes.tolist() == [[4, 6, 24, 26], [10, 10, 50, 40]]
    assert annotations.sizes.tolist() == [[64, 48], [64, 48]]
    assert annotations.object_ids.tolist() == [1, 2]


def test_ids_may_have_gaps_and_any_order(tmp_path):
    content = coco_content()
    content["categories"] = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    for entry, key in zip(content["images"], (900, 5)):
        entry["id"] = key
    for entry, category in zip(content["annotations"], (7, 90)):
        entry.update(image_id=900, category_id=category)
    annotations = read(tmp_path, content)
    assert (annotations.class_names, annotations.class_ids) == (("cat", "dog"), (7, 90))
    assert annotations.image_ids.tolist() == [900, 5]
    assert annotations.labels.tolist() == [0, 1]


def test_classes_without_boxes_stay_in_the_table(tmp_path):
    content = coco_content()
    content["categories"].append({"id": 3, "name": "emu"})
    assert read(tmp_path, content).class_names == ("cat", "dog", "emu")


def test_crowd_regions_get_the_ignore_flag(tmp_path):
    content = coco_content()
    content["annotations"][1]["iscrowd"] = 1
    assert read(tmp_path, content).ignore.tolist() == [False, True]


def test_areas_are_those_of_the_file_where_it_has_them(tmp_path):
    content = coco_content()
    content["annotations"][0]["area"] = 12.5
    assert read(tmp_path, content).areas.tolist() == [12.5, 1200]


def test_pictures_without_annotations_stay(tmp_path):
    content = coco_content() | {"annotations": []}
    annotations = read(tmp_path, content)
    assert (len(annotations), len(annotations.boxes)) == (2, 0)


def test_annotations_may_come_before_images_and_categories(tmp_path):
    content = coco_content()
    turned = {key: content[key] for key in ("annotations", "categories", "images")}
    assert read(tmp_path, turned).labels.tolist() == [0, 1]


def test_unknown_sections_and_fields_are_skipped(tmp_path):
    content = {
        "info": {"a": [1, {"b": None}]},
        "licenses": [1, [2]],
        "x": 7,
        **coco_content(),
        "last": [[], "]}"],
    }
    content["annotations"][0]["segmentation"] = {"counts": ']}\\"abc', "size": [1, 2]}
    assert len(read(tmp_path, content).boxes) == 2


def test_sizes_and_annotation_ids_may_be_missing(tmp_path):
    content = coco_content()
    for entry in content["images"]:
        del entry["width"]
    for entry in content["annotations"]:
        del entry["id"]
    annotations = read(tmp_path, content)
    assert annotations.sizes.tolist() == [[-1, -1]] * 2
    assert annotations.object_ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    "folder",
    ["train", "images/train", "annotations", "images", "JPEGImages", "VOCdevkit/VOC2007/JPEGImages", "."],
)
def test_the_folder_of_the_pictures_is_found(tmp_path, folder):
    (tmp_path / "annotations").mkdir()
    (tmp_path / FILE).write_text(json.dumps(coco_content()))
    write_picture(tmp_path / folder / "b.jpg")
    assert read_coco(tmp_path, FILE).file(1).is_file()


def test_the_folder_of_the_pictures_can_be_named_even_outside_the_root(tmp_path):
    write_coco(tmp_path / "data")
    write_picture(tmp_path / "disk/a.jpg")
    inside = read_coco(tmp_path / "data", FILE, images="train")
    outside = read_coco(tmp_path / "data", FILE, images=tmp_path / "disk")
    assert (inside.name(0), outside.file(0)) == ("train/a.jpg", (tmp_path / "disk/a.jpg").resolve())


def test_a_bad_entry_does_not_spoil_its_neighbours(tmp_path):
    content = coco_content()
    content["annotations"].insert(1, {"id": 77, "image_id": 1, "category_id": 1, "bbox": [1, 2, "3", 4]})
    log = ProblemLog()
    annotations = read(tmp_path, content, log)
    assert annotations.labels.tolist() == [0, 1]
    assert [(p.kind, p.object) for p in log.problems] == [("broken_object", "annotations[1]")]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_named(tmp_path, value):
    write_coco(tmp_path)
    file = tmp_path / FILE
    file.write_text(file.read_text().replace("[10, 10, 40, 30]", f"[{value}, 10, 40, 30]"))
    with pytest.raises(DataError, match=r"annotations\[1\].*NaN and Infinity"):
        read_coco(tmp_path, FILE)


def test_ids_of_nothing_and_duplicates_are_reported(tmp_path):
    content = coco_content({**TWO, "c": []})
    content["images"][1]["id"] = 1
    content["annotations"][0]["image_id"] = 99
    content["annotations"][1]["category_id"] = 99
    log = ProblemLog()
    annotations = read(tmp_path, content, log)
    assert [p.kind for p in log.problems] == ["duplicate_id", "unknown_image", "class_id"]
    assert (len(annotations), len(annotations.boxes)) == (2, 0)


def test_a_file_name_that_leaves_the_root_is_reported_and_its_boxes_leave_with_it(tmp_path):
    content = coco_content()
    content["images"][0]["file_name"] = "../../../../etc/passwd"
    log = ProblemLog()
    annotations = read(tmp_path, content, log)
    assert [p.kind for p in log.problems] == ["unsafe_path"]
    assert (len(annotations), len(annotations.boxes)) == (1, 0)


def test_results_can_be_written_with_the_ids_of_the_file(tmp_path):
    content = coco_content()
    content["categories"] = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
    content["annotations"] = []
    renamed = read(tmp_path, content).with_classes(["dog", "cat", "emu"])
    assert renamed.class_ids[:2] == (18, 17)
    assert len(set(renamed.class_ids)) == 3
