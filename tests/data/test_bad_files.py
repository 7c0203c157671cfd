"""Every fault of a file is reported with its kind and place, and nothing but our error escapes."""

import json
from pathlib import Path

import numpy as np
import pytest
from folders import TWO, coco_content, voc_xml, write_coco, write_voc, write_yolo

from boxmatch.data.load import load_splits
from boxmatch.errors import DataError

XML, JSON, TXT = "VOC2007/Annotations/a.xml", "annotations/instances_train.json", "labels/train/a.txt"
VOC_LIST = "VOC2007/ImageSets/Main/train.txt"
WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def voc_object(name: str = "cat", **sides: object) -> str:
    corners = {"xmin": 5, "ymin": 5, "xmax": 20, "ymax": 20, **sides}
    box = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items() if value is not None)
    return f"<annotation><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"


def coco_with(section: str, position: int, **changes: object) -> str:
    """A COCO file in which one entry is changed; None takes a field away."""
    content = coco_content()
    entry = content[section][position]
    entry.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del entry[key]
    return json.dumps(content)


VOC_CASES = [
    ("", "broken_file"),
    ("<annotation>", "broken_file"),
    ("<annotation><object></annotation>", "broken_file"),
    ("<annotations/>", "broken_file"),
    ("\ufffe", "broken_file"),
    ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "broken_file"),
    ("<annotation><object/></annotation>", "broken_object"),
    ("<annotation><object><name>cat</name></object></annotation>", "broken_object"),
    (voc_object(name=""), "broken_object"),
    (voc_object(xmin=None), "broken_object"),
    (voc_object(xmax=""), "broken_object"),
    (voc_object(xmax="ten"), "broken_object"),
    (voc_object(xmax="1,5"), "broken_object"),
    (voc_object(xmax="nan"), "non_finite"),
    (voc_object(ymin="-inf"), "non_finite"),
    (voc_object(ymax="1e999"), "non_finite"),
    (voc_object(ymax="1e300"), "non_finite"),
    (voc_object(xmax=2), "inverted"),
    (voc_object(ymin=90), "inverted"),
    (voc_object(xmax=5, ymax=5), "zero_size"),
    (voc_object(xmax=4), "zero_size"),
    (voc_object(xmin=-3), "outside"),
    (voc_object(xmax=65.5), "outside"),
    (voc_object(xmin=500, xmax=600), "outside"),
    (voc_object(name="horse"), "unknown_class"),
    (voc_object(name="Cat"), "unknown_class"),
    ("<annotation><size><width>48</width><height>64</height></size></annotation>", "picture_size"),
]
COCO_CASES = [
    ("", "broken_file"),
    ("[]", "broken_file"),
    ("{}", "broken_file"),
    ('{"images": [], "annotations": []}', "broken_file"),
    ('{"images": [{"id": 1,', "broken_file"),
    (json.dumps(coco_content())[:-40], "broken_file"),
    (json.dumps(coco_content()).replace("[10, 10,", "[NaN, 10,"), "non_finite"),
    (json.dumps(coco_content()).replace("[10, 10,", "[1e999, 10,"), "non_finite"),
    (coco_with("images", 0, id="1"), "broken_object"),
    (coco_with("images", 0, file_name=None), "broken_object"),
    (coco_with("images", 0, file_name=7), "broken_object"),
    (coco_with("images", 0, file_name="\ud800"), "broken_object"),
    (coco_with("images", 0, width="wide"), "broken_object"),
    (coco_with("images", 0, width=48), "picture_size"),
    (coco_with("images", 1, id=1), "duplicate_id"),
    (coco_with("images", 1, file_name="a.jpg"), "duplicate_id"),
    (coco_with("images", 0, file_name="c.jpg"), "missing_picture"),
    (coco_with("images", 0, file_name="../../a.jpg"), "unsafe_path"),
    (coco_with("images", 0, file_name="a\0.jpg"), "unsafe_path"),
    (coco_with("annotations", 0, bbox=None), "broken_object"),
    (coco_with("annotations", 0, bbox=[1, 2, 3]), "broken_object"),
    (coco_with("annotations", 0, bbox={"x": 1}), "broken_object"),
    (coco_with("annotations", 0, bbox=[1, 2, "3", 4]), "broken_object"),
    (coco_with("annotations", 0, bbox=[1, 2, [3], 4]), "broken_object"),
    (coco_with("annotations", 0, bbox=[1, 2, 10**30, 4]), "broken_object"),
    (coco_with("annotations", 0, image_id=None), "broken_object"),
    (coco_with("annotations", 0, image_id="1"), "broken_object"),
    (coco_with("annotations", 0, image_id=10**30), "broken_object"),
    (coco_with("annotations", 0, image_id=99), "unknown_image"),
    (coco_with("annotations", 0, category_id=1.5), "broken_object"),
    (coco_with("annotations", 0, category_id=0), "class_id"),
    (coco_with("annotations", 0, category_id=-1), "class_id"),
    (coco_with("annotations", 0, bbox=[4, 6, -3, 20]), "inverted"),
    (coco_with("annotations", 0, bbox=[4, 6, 0, 20]), "zero_size"),
    (coco_with("annotations", 0, bbox=[4, 6, 1, 1]), "zero_size"),
    (coco_with("annotations", 0, bbox=[4, 6, 80, 20]), "outside"),
    (coco_with("annotations", 1, id=1), "duplicate_object_id"),
    (coco_with("annotations", 1, bbox=[4, 6, 20, 20], category_id=1), "duplicate_box"),
    (coco_with("categories", 0, id=None), "broken_object"),
    (coco_with("categories", 0, name=["cat"]), "broken_object"),
    (coco_with("categories", 0, name="cat\x1b[31m"), "broken_object"),
    (coco_with("categories", 1, name="cat"), "duplicate_id"),
    (coco_with("categories", 1, id=1), "duplicate_id"),
    (coco_with("categories", 0, name="Cat"), "unknown_class"),
]
YOLO_CASES = [
    (b"0 0.5 0.5 0.5", "broken_object"),
    (b"0 0.5 0.5 0.5 0.5 0.5", "broken_object"),
    (b"cat 0.5 0.5 0.5 0.5", "broken_object"),
    (b"0.5 0.5 0.5 0.5 0.5", "broken_object"),
    (b"<annotation/>", "broken_object"),
    (b"0 0.5 0.5 0.5 0.5\0", "broken_object"),
    (b"\xff\xfe0", "broken_file"),
    (b"7 0.5 0.5 0.5 0.5", "class_id"),
    (b"-1 0.5 0.5 0.5 0.5", "class_id"),
    (b"0 nan 0.5 0.5 0.5", "non_finite"),
    (b"0 0.5 0.5 inf 0.5", "non_finite"),
    (b"0 0.5 0.5 1e999 0.5", "non_finite"),
    (b"0 0.5 0.5 -0.5 0.5", "inverted"),
    (b"0 0.5 0.5 0 0.5", "zero_size"),
    (b"0 0.5 0.5 0.015625 0.020833", "zero_size"),
    (b"0 1.5 0.5 0.5 0.5", "outside"),
    (b"0 40 20 8 8", "outside"),
]
CASES = [
    *(("voc", XML, text.encode("utf-8", "surrogatepass"), kind) for text, kind in VOC_CASES),
    *(("coco", JSON, text.encode("utf-8", "surrogatepass"), kind) for text, kind in COCO_CASES),
    *(("yolo", TXT, text, kind) for text, kind in YOLO_CASES),
    ("voc", VOC_LIST, b"a\n../../../etc/passwd\n", "unsafe_path"),
    ("voc", VOC_LIST, b"a\nnone\n", "broken_file"),
    ("voc", VOC_LIST, b"\xff\xfe", "broken_file"),
    ("voc", VOC_LIST, b"a\n" + b"long name " * 1000, "broken_file"),
    ("yolo", "data.yaml", b'names: ["cat\\e[31m", dog]\ntrain: images/train\n', "broken_file"),
    ("voc", "VOC2007/JPEGImages/a.jpg", b"no picture", "unreadable_picture"),
    ("coco", "train/a.jpg", b"", "unreadable_picture"),
    ("yolo", "images/train/a.jpg", b"GIF89a", "unreadable_picture"),
    ("yolo", "data.yaml", b"names: [cat, dog]\ntrain: [images/train, images/train]\n", "duplicate_id"),
]


def test_there_are_more_than_forty_bad_files():
    assert len(CASES) >= 40


@pytest.mark.parametrize(("layout", "file", "content", "kind"), CASES)
def test_a_bad_file_is_reported_with_its_kind_and_never_crashes(tmp_path, layout, file, content, kind):
    root = WRITERS[layout](tmp_path)
    (root / file).write_bytes(content)
    try:
        _, report = load_splits(root, {"train": None}, layout=layout, class_names=["cat", "dog"])
    except DataError as error:  # nothing can be read at all
        assert kind == "broken_file"
        assert Path(file).name in str(error)
        return
    found = [problem for problem in report.problems if problem.kind == kind]
    assert found, [str(problem) for problem in report.problems]
    assert all(problem.split == "train" and problem.message for problem in found)


@pytest.mark.parametrize("layout", WRITERS)
def test_random_mutations_give_a_report_or_our_error(tmp_path, layout):
    root = WRITERS[layout](tmp_path)
    files = {"voc": [XML, VOC_LIST], "coco": [JSON], "yolo": [TXT, "data.yaml"]}[layout]
    random = np.random.default_rng(0)
    reported = 0
    for round_number in range(120):
        file = root / files[round_number % len(files)]
        good = file.read_bytes()
        file.write_bytes(mutate(good, random))
        try:
            splits, report = load_splits(root, {"train": None}, layout=layout)
            assert np.isfinite(splits["train"].boxes).all()
            assert json.loads(report.to_json())["root"] == str(root)
            reported += bool(report.problems)
        except DataError:
            reported += 1
        file.write_bytes(good)
    assert reported > 40


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Change, cut, double or insert a few bytes; half of the time with bytes that mean something."""
    changed = bytearray(data)
    meaningful = b'<>/"{}[]:,.-0919eE\n \\&;x\0\xff'
    for _ in range(random.integers(1, 4)):
        position = int(random.integers(0, len(changed) + 1))
        byte = (
            meaningful[random.integers(len(meaningful))]
            if random.random() < 0.5
            else int(random.integers(256))
        )
        length = int(random.integers(1, 20))
        match random.integers(5):
            case 0:
                changed[position : position + 1] = bytes([byte])
            case 1:
                changed.insert(position, byte)
            case 2:
                del changed[position : position + length]
            case 3:
                changed[position:position] = changed[position : position + length]
            case 4:
                changed = changed[: max(position, 1)]
    return bytes(changed)


def test_objects_of_the_good_pictures_are_still_read(tmp_path):
    root = write_voc(tmp_path, {**TWO, "c": TWO["a"]})
    (root / XML).write_text("<annotation>")
    (root / "VOC2007/Annotations/b.xml").write_text(voc_xml([("cat", 1, 1, 9, 9)]))
    splits, report = load_splits(root, {"train": "train"})
    assert len(splits["train"].boxes) == 3
    assert report.errors == 1
