"""Which layout a folder has, and where its splits are."""

import pytest
from folders import TWO, coco_content, write_coco, write_voc, write_yolo

from boxmatch.data.read import ReadOptions, coco_files, detect_format, find_entry, read_split
from boxmatch.errors import DataError


@pytest.mark.parametrize(
    ("layout", "write"), [("voc", write_voc), ("coco", write_coco), ("yolo", write_yolo)]
)
def test_each_layout_is_recognised(tmp_path, layout, write):
    assert detect_format(write(tmp_path)) == layout


def test_of_several_layouts_voc_is_taken_first_and_yolo_last(tmp_path):
    write_yolo(tmp_path)
    write_coco(tmp_path)
    assert detect_format(tmp_path) == "coco"
    write_voc(tmp_path)
    assert detect_format(tmp_path) == "voc"


def test_a_stray_json_file_does_not_make_a_yolo_set_a_coco_set(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "info.json").write_text("{}")
    assert detect_format(tmp_path) == "yolo"
    (tmp_path / "data.yaml").unlink()
    assert detect_format(tmp_path) == "coco"


def test_a_folder_without_a_layout_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="neither"):
        detect_format(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        detect_format(tmp_path / "none")
    (tmp_path / "data.zip").touch()
    with pytest.raises(DataError, match="a file, not a folder"):
        detect_format(tmp_path / "data.zip")


def test_the_validation_split_has_several_usual_names(tmp_path):
    write_voc(tmp_path / "voc", split="validation")
    write_coco(tmp_path / "coco", split="valid")
    write_yolo(tmp_path / "yolo", split="val")
    assert find_entry(tmp_path / "voc", "voc", "val") == "validation"
    assert find_entry(tmp_path / "coco", "coco", "val") == "annotations/instances_valid.json"
    assert find_entry(tmp_path / "yolo", "yolo", "val") == "val"
    assert find_entry(tmp_path / "voc", "voc", "test") is None


def test_a_voc_folder_without_lists_is_all_training(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "VOC2007/ImageSets/Main/train.txt").unlink()
    assert len(read_split(tmp_path, find_entry(tmp_path, "voc", "train"))) == 2
    assert find_entry(tmp_path, "voc", "val") is None


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (
            ["annotations/instances_train2017.json", "annotations/captions_train2017.json"],
            "annotations/instances_train2017.json",
        ),
        (["annotations/restrained.json", "annotations/my_train.json"], "annotations/my_train.json"),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], "train/_annotations.coco.json"),
        (["everything.json"], "everything.json"),
        (["one.json", "two.json"], None),
    ],
)
def test_the_json_file_of_the_training_split_is_found(tmp_path, files, entry):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert find_entry(tmp_path, "coco", "train") == entry
    assert sorted(coco_files(tmp_path)) == sorted(files)


def test_two_json_files_that_fit_are_refused(tmp_path):
    for year in ("2014", "2017"):
        write_coco(tmp_path, split=f"train{year}")
    with pytest.raises(DataError, match=r"train2014.*train2017"):
        find_entry(tmp_path, "coco", "train")


def test_a_split_that_does_not_exist_is_named_in_every_layout(tmp_path):
    for layout, write in (("voc", write_voc), ("coco", write_coco), ("yolo", write_yolo)):
        with pytest.raises(DataError, match="'test'"):
            read_split(write(tmp_path / layout), "test")


def test_several_entries_are_joined(tmp_path):
    write_voc(tmp_path, {"a": TWO["a"]}, "trainval", "VOC2007")
    write_voc(tmp_path, {"x": TWO["a"]}, "trainval", "VOC2012")
    joined = read_split(tmp_path, ["VOC2012/trainval", "VOC2007/trainval"])
    assert [joined.name(i) for i in range(2)] == ["VOC2012/JPEGImages/x.jpg", "VOC2007/JPEGImages/a.jpg"]
    write_coco(tmp_path / "coco")
    write_coco(tmp_path / "coco", coco_content(), split="more")
    assert len(read_split(tmp_path / "coco", ["train", "annotations/instances_more.json"])) == 4


def test_options_reach_the_reader(tmp_path):
    write_voc(tmp_path, split="trainval", year="VOC2007")
    write_voc(tmp_path, split="trainval", year="VOC2012")
    assert len(read_split(tmp_path, "trainval", options=ReadOptions(years=(2012,)))) == 2
