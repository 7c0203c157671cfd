"""The YOLO reader: data files, lists and folders, where labels lie, what a line may hold."""

import pytest
from folders import SIZE, TWO, write_picture, write_yolo

from boxmatch.data.problems import ProblemLog
from boxmatch.data.yolo_txt import read_yolo
from boxmatch.errors import DataError


def with_yaml(tmp_path, text):
    (write_yolo(tmp_path) / "data.yaml").write_text(text)
    return tmp_path


def names(annotations):
    return [annotations.name(i) for i in range(len(annotations))]


def test_relative_numbers_become_pixels(tmp_path):
    boxes = read_yolo(write_yolo(tmp_path)).boxes
    assert boxes.round(3).tolist() == [[4, 6, 24, 26], [10, 10, 50, 40]]


def test_sizes_come_from_the_pictures(tmp_path):
    write_yolo(tmp_path)
    write_picture(tmp_path / "images/train/b.jpg", (10, 20))
    assert read_yolo(tmp_path).sizes.tolist() == [list(SIZE), [10, 20]]


@pytest.mark.parametrize(
    "classes",
    ["[cat, dog]", "{0: cat, 1: dog}", "{1: dog, 0: cat}", "{'0': cat, '1': dog}", "\n  - cat\n  - dog"],
)
def test_classes_are_a_list_or_a_mapping(tmp_path, classes):
    root = with_yaml(tmp_path, f"train: images/train\nnc: 2\nnames: {classes}\n")
    assert read_yolo(root).class_names == ("cat", "dog")


def test_class_names_that_look_like_numbers_and_truth_values_stay_names(tmp_path):
    root = with_yaml(tmp_path, "train: images/train\nnames: [no, yes, 1:30, on]\n")
    assert read_yolo(root).class_names == ("no", "yes", "1:30", "on")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: []", "names"),
        ("names: cat", "names"),
        ("names: {0: cat, 2: dog}", "0 to 1"),
        ("names: {a: cat}", "0 to 0"),
        ("names: [cat, cat]", "twice"),
        ("names: [cat, true]", "quotes"),
        ("names: [cat, [dog]]", "quotes"),
        ("names: [cat, '']", "quotes"),
        ("names: [cat, dog]\nnc: 3", "'nc' is 3"),
        ("names: [cat, dog]\nnames: [dog, cat]", "twice"),
        ("names: [cat, dog]\ntrain: ''", "no entry 'train'"),
        ("names: [cat, dog]\ntrain: [3]", "expected a file"),
        ("names: [cat, dog]\ntrain: nowhere", "'nowhere' is no list file"),
        ("names: [cat, dog]\ntrain: ../..", "is no list file"),
        ("names: [cat, dog]\ntrain: /etc", "is no list file"),
        ("names: [cat, dog]\npath: [1]\ntrain: images/train", "expected a folder in 'path'"),
        ("names: [cat, dog]\ndownload: echo hello > hacked", "refused"),
    ],
)
def test_a_data_file_that_makes_no_sense_is_refused(tmp_path, text, message):
    root = with_yaml(tmp_path, text + ("\n" if "train:" in text else "\ntrain: images/train\n"))
    with pytest.raises(DataError, match=message):
        read_yolo(root)
    assert not (tmp_path / "hacked").exists()


def test_lists_count_from_their_own_folder(tmp_path):
    root = with_yaml(tmp_path, "names: [cat, dog]\ntrain: lists/train.txt\n")
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_bytes(
        b"\xef\xbb\xbf../images/train/b.jpg\r\n\r\n../images/train/a.jpg\r\n"
    )
    assert names(read_yolo(root)) == ["images/train/b.jpg", "images/train/a.jpg"]


def test_lists_may_count_from_the_root_or_be_absolute_below_it(tmp_path):
    root = with_yaml(tmp_path, "names: [cat, dog]\ntrain: lists/train.txt\n")
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text(f"images/train/b.jpg\n{root}/images/train/a.jpg\n")
    assert names(read_yolo(root)) == ["images/train/b.jpg", "images/train/a.jpg"]


def test_entries_may_be_several_and_their_base_is_the_path_of_the_data_file(tmp_path):
    write_yolo(tmp_path)
    write_yolo(tmp_path, {"v": []}, split="val")
    (tmp_path / "yolo").mkdir()
    (tmp_path / "data.yaml").rename(tmp_path / "yolo/data.yaml")
    (tmp_path / "yolo/data.yaml").write_text(
        "names: [cat, dog]\npath: ..\ntrain: [images/train, images/val]\n"
    )
    assert names(read_yolo(tmp_path)) == ["images/train/a.jpg", "images/train/b.jpg", "images/val/v.jpg"]


def test_exported_sets_that_climb_one_folder_too_far_are_read(tmp_path):
    assert len(read_yolo(with_yaml(tmp_path, "names: [cat, dog]\ntrain: ../images/train\n"))) == 2


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("VOC2007/JPEGImages", "VOC2007/labels"),
        ("images/images", "images/labels"),
        ("train", "labels/train"),
        ("train", "train"),
    ],
)
def test_labels_are_found_beside_their_pictures(tmp_path, pictures, labels):
    write_picture(tmp_path / pictures / "a.jpg")
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "data.yaml").write_text(f"names: [cat]\ntrain: {pictures}\n")
    assert len(read_yolo(tmp_path).boxes) == 1


def test_a_picture_without_a_label_file_has_no_objects_and_is_noted(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    log = ProblemLog()
    assert len(read_yolo(tmp_path, log=log)) == 2
    assert [(p.kind, p.file) for p in log.problems] == [("missing_labels", "images/train/a.jpg")]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.5", "broken_object"),
        ("0 0.5 0.5 0.5 0.5 0.9", "broken_object"),
        ("cat 0.5 0.5 0.5 0.5", "broken_object"),
        ("0.0 0.5 0.5 0.5 0.5", "broken_object"),
        ("0 a 0.5 0.5 0.5", "broken_object"),
        ("0,0.5,0.5,0.5,0.5", "broken_object"),
        ("-1 0.5 0.5 0.5 0.5", "class_id"),
        ("2 0.5 0.5 0.5 0.5", "class_id"),
        ("99999999999999999999 0.5 0.5 0.5 0.5", "class_id"),
    ],
)
def test_a_bad_line_is_reported_and_the_others_are_read(tmp_path, line, kind):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n1 0.5 0.5 0.5 0.5\n")
    log = ProblemLog()
    annotations = read_yolo(tmp_path, log=log)
    assert annotations.object_ids.tolist() == [1, 3]
    assert [(p.kind, p.file, p.object) for p in log.problems] == [(kind, "labels/train/a.txt", "line 2")]


def test_windows_line_ends_tabs_and_byte_order_marks_are_read(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(
        b"\xef\xbb\xbf0\t0.5 0.5  0.5 0.5\r\n\r\n1 0.5 0.5 0.5 5e-1\r\n"
    )
    assert read_yolo(tmp_path).labels.tolist() == [0, 1]


def test_pictures_that_cannot_be_read_are_told_apart(tmp_path):
    root = with_yaml(tmp_path, "names: [cat, dog]\ntrain: train.txt\n")
    (root / "images/train/b.jpg").write_bytes(b"nothing")
    (root / "train.txt").write_text(
        "images/train/a.jpg\nimages/train/b.jpg\nimages/train/c.jpg\n../../x.jpg\n"
    )
    log = ProblemLog()
    assert len(read_yolo(root, log=log, pixel_limit=100)) == 0
    assert [p.kind for p in log.problems] == [
        "unsafe_path",
        "large_picture",
        "unreadable_picture",
        "missing_picture",
    ]


def test_a_picture_listed_twice_is_reported_and_taken_once(tmp_path):
    root = with_yaml(tmp_path, "names: [cat, dog]\ntrain: train.txt\n")
    (root / "train.txt").write_text("images/train/a.jpg\n./images/train/a.jpg\n")
    log = ProblemLog()
    assert len(read_yolo(root, log=log)) == 1
    assert [p.kind for p in log.problems] == ["duplicate_id"]


def test_the_only_yaml_with_names_is_the_data_file(tmp_path):
    write_yolo(tmp_path, TWO)
    (tmp_path / "data.yaml").rename(tmp_path / "cats.yml")
    (tmp_path / "other.yaml").write_text("a: 1\n")
    assert len(read_yolo(tmp_path)) == 2
    (tmp_path / "dogs.yaml").write_text("names: [dog]\n")
    with pytest.raises(DataError, match=r"cats\.yml.*dogs\.yaml"):
        read_yolo(tmp_path)
