"""From a folder to checked splits with one class table and one report."""

import json
import subprocess
import sys

import pytest
from folders import TWO, coco_content, voc_xml, write_coco, write_picture, write_voc, write_yolo

from boxmatch.data.load import load_splits, split_off
from boxmatch.data.problems import CheckPolicy
from boxmatch.data.read import read_split
from boxmatch.errors import DataError

CAT, DOG, EMU = (("cat", 1, 1, 9, 9), ("dog", 2, 2, 20, 20), ("emu", 3, 3, 30, 30))


def two_splits(root, train, val):
    write_voc(root, {f"t{k}": objects for k, objects in enumerate(train)}, "train")
    return write_voc(root, {f"v{k}": objects for k, objects in enumerate(val)}, "val")


def kinds(report):
    return {(kind, split): number for (kind, split, _), number in report.counts.items()}


def test_all_splits_have_one_class_table(tmp_path):
    splits, report = load_splits(two_splits(tmp_path, [[DOG]], [[CAT, DOG]]))
    assert splits["train"].class_names == splits["val"].class_names == report.class_names == ("cat", "dog")
    assert splits["train"].labels.tolist() == [1]
    assert splits["val"].labels.tolist() == [0, 1]


def test_given_names_lead_and_others_are_errors_with_the_nearest_one(tmp_path):
    root = two_splits(tmp_path, [[DOG, CAT]], [[EMU]])
    splits, report = load_splits(root, class_names=["dog", "cats"])
    assert splits["train"].labels.tolist() == [0]
    assert kinds(report) == {("unknown_class", "train"): 1, ("unknown_class", "val"): 1}
    with pytest.raises(DataError, match=r"'cat' is not in the class list; did you mean 'cats'"):
        report.refuse()


def test_unknown_classes_can_be_dropped(tmp_path):
    root = two_splits(tmp_path, [[DOG, CAT]], [[DOG]])
    splits, report = load_splits(root, class_names=["dog"], policy=CheckPolicy(unknown_class="drop"))
    report.refuse()
    assert splits["train"].labels.tolist() == [0]


def test_a_class_list_file_makes_other_names_unknown(tmp_path):
    root = two_splits(tmp_path, [[DOG, CAT]], [[DOG]])
    (root / "classes.txt").write_text("dog\nkat\n")
    _, report = load_splits(root)
    assert report.class_names == ("dog", "kat")
    assert kinds(report) == {("unknown_class", "train"): 1}


def test_class_names_given_twice_or_not_at_all_are_refused(tmp_path):
    for names in (["cat", "cat"], []):
        with pytest.raises(DataError, match="each once"):
            load_splits(write_voc(tmp_path), class_names=names)


def test_problems_of_all_splits_are_reported_at_once(tmp_path):
    root = two_splits(tmp_path, [[CAT], [("cat", 9, 9, 5, 5)]], [[CAT], [CAT]])
    (root / "VOC2007/Annotations/v1.xml").write_text("<annotation>")
    (root / "VOC2007/JPEGImages/v0.jpg").unlink()
    _, report = load_splits(root)
    assert kinds(report) == {
        ("inverted", "train"): 1,
        ("broken_file", "val"): 1,
        ("missing_picture", "val"): 1,
    }
    assert report.errors == 3


def test_a_split_that_cannot_be_read_does_not_hide_the_faults_of_the_other(tmp_path):
    write_coco(tmp_path, "not a COCO file", split="val")
    content = coco_content()
    content["annotations"][0]["bbox"] = [5, 5, -1, 5]
    write_coco(tmp_path, content)
    splits, report = load_splits(tmp_path, policy=CheckPolicy(broken_file="drop"))
    assert list(splits) == ["train"]
    assert kinds(report) == {("broken_file", "val"): 1, ("inverted", "train"): 1}
    assert report.errors == 2


def test_without_a_validation_split_a_tenth_is_held_out_and_told(tmp_path):
    root = write_voc(tmp_path, {f"{k:03d}": [CAT] for k in range(100)})
    splits, report = load_splits(root, pictures="skip")
    assert 3 <= len(splits["val"]) <= 20
    assert len(splits["train"]) + len(splits["val"]) == 100
    assert f"{len(splits['val'])} pictures of 'train' were held out" in report.text()
    assert ("shared_picture", "val") not in kinds(report)


def test_what_is_held_out_does_not_change_when_pictures_are_added(tmp_path):
    few = write_voc(tmp_path / "few", {f"{k:03d}": [] for k in range(50)})
    many = write_voc(tmp_path / "many", {f"{k:03d}": [] for k in range(80)})
    held = [split_off(read_split(root, "train"), 0.3)[1] for root in (few, many)]
    names = [{part.name(i) for i in range(len(part))} for part in held]
    assert names[0] == {name for name in names[1] if int(name[-7:-4]) < 50}


def test_nothing_is_held_out_when_the_split_is_not_asked_for(tmp_path):
    splits, _ = load_splits(write_voc(tmp_path), {"train": None})
    assert list(splits) == ["train"]


def test_entries_that_are_named_must_exist(tmp_path):
    _, report = load_splits(write_voc(tmp_path), {"train": "train", "val": "nowhere"})
    assert report.errors == 1
    with pytest.raises(DataError, match="no split 'train'"):
        load_splits(write_voc(tmp_path / "other", split="test"))


def test_a_picture_in_two_splits_is_noted(tmp_path):
    write_voc(tmp_path, TWO, "train")
    write_voc(tmp_path, {"a": TWO["a"]}, "val")
    _, report = load_splits(tmp_path)
    assert kinds(report) == {("shared_picture", "val"): 1}
    assert report.problems[0].file == "VOC2007/JPEGImages/a.jpg"
    assert report.errors == 0


def test_a_class_without_training_objects_is_noted(tmp_path):
    _, report = load_splits(two_splits(tmp_path, [[CAT]], [[CAT, DOG]]))
    assert kinds(report) == {("untrained_class", "val"): 1}


def test_names_that_differ_by_a_letter_are_noted_where_they_are_typed_by_hand(tmp_path):
    objects = [("platelets", 1, 1, 9, 9), ("platelet", 2, 2, 9, 9)]
    _, report = load_splits(two_splits(tmp_path / "voc", [objects], [objects]))
    assert kinds(report) == {("similar_class", ""): 1}
    _, listed = load_splits(write_coco(tmp_path / "coco", pictures={"a": objects}), {"train": None})
    assert kinds(listed) == {}


def test_notes_can_be_made_errors(tmp_path):
    root = two_splits(tmp_path, [[CAT]], [[DOG]])
    _, report = load_splits(root, policy=CheckPolicy(untrained_class="error"))
    assert report.errors == 1


def test_yolo_pictures_are_decoded_when_asked(tmp_path):
    write_yolo(tmp_path)
    path = tmp_path / "images/train/a.jpg"
    write_picture(path, (640, 480))
    path.write_bytes(path.read_bytes()[:1000])
    assert load_splits(tmp_path, {"train": None})[1].errors == 0
    assert kinds(load_splits(tmp_path, {"train": None}, pictures="decode")[1]) == {
        ("unreadable_picture", "train"): 1
    }


def test_the_report_has_a_table_and_every_problem_with_its_action(tmp_path):
    root = two_splits(tmp_path, [[CAT, DOG, ("dog", 5, 5, 5, 9)], []], [[CAT]])
    _, report = load_splits(root)
    lines = report.text().splitlines()
    assert [line.split() for line in lines[2:6]] == [
        ["class", "train", "val"],
        ["-" * 26],
        ["cat", "1", "1"],
        ["dog", "1", "0"],
    ]
    assert [line.split()[-2:] for line in lines[7:11]] == [["2", "1"], ["0", "0"], ["2", "1"], ["1", "0"]]
    assert "dropped: zero_size (1)" in lines
    assert any("t0.jpg, object 3" in line for line in lines)


def test_classes_without_an_object_share_one_line(tmp_path):
    names = ["cat", "cow", "dog", "emu"]
    _, report = load_splits(two_splits(tmp_path, [[CAT]], [[DOG]]), class_names=names)
    lines = report.text().splitlines()
    assert [line.split()[0] for line in lines[4:6]] == ["cat", "dog"]
    assert "no object of 2 classes: cow, emu" in lines


def test_a_report_without_problems_says_so(tmp_path):
    assert "no problems found" in load_splits(two_splits(tmp_path, [[CAT]], [[CAT]]))[1].text()


def test_long_lists_of_problems_are_cut_in_print_and_whole_in_json(tmp_path):
    root = two_splits(tmp_path, [[("cat", 5, 5, 5, 9)] * 30], [[CAT]])
    _, report = load_splits(root)
    assert "... and 25 more" in report.text()
    content = json.loads(report.to_json())
    assert len([p for p in content["problems"] if p["kind"] == "zero_size"]) == 30
    assert content["splits"]["val"]["per_class"] == {"cat": 1}


def test_json_has_no_numbers_that_json_does_not_have(tmp_path):
    root = write_voc(tmp_path)
    (root / "VOC2007/Annotations/a.xml").write_text(voc_xml([("cat", float("nan"), 1, 5, 5)]))
    _, report = load_splits(root, {"train": None})
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["problems"][0]["box"][0] == "nan"


def test_reading_and_checking_need_no_torch(tmp_path):
    root = write_voc(tmp_path)
    code = f"""
import sys
from boxmatch.data.load import load_splits
load_splits({str(root)!r})
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
