"""The VOC reader: the coordinate rule, image sets and years, difficult objects, what may be missing."""

import numpy as np
import pytest
from folders import TWO, voc_xml, write_picture, write_voc

from boxmatch.data.problems import ProblemLog
from boxmatch.data.voc import read_voc
from boxmatch.errors import DataError


def rewrite(root, text, name="a", **options):
    """Read a set whose first annotation has this text."""
    (root / "VOC2007/Annotations" / f"{name}.xml").write_text(text, encoding="utf-8", **options)
    return read_voc(root)


def test_coordinates_lose_one_at_the_beginning_and_keep_their_end(tmp_path):
    root = write_voc(tmp_path)
    text = (root / "VOC2007/Annotations/a.xml").read_text()
    assert "<xmin>5</xmin><ymin>7</ymin><xmax>24</xmax><ymax>26</ymax>" in text
    assert read_voc(root).boxes[0].tolist() == [4, 6, 24, 26]


def test_coordinates_may_be_fractions(tmp_path):
    annotations = rewrite(write_voc(tmp_path), voc_xml([("cat", 4.5, 6.25, 24.5, 26.75)]))
    assert annotations.boxes.tolist() == [[4.5, 6.25, 24.5, 26.75]]


@pytest.mark.parametrize(
    ("difficult", "ignore"), [("keep", [False, False]), ("ignore", [True, False]), ("drop", [False])]
)
def test_difficult_objects_are_kept_dropped_or_ignored(tmp_path, difficult, ignore):
    root = write_voc(tmp_path)
    text = voc_xml([("cat", 0, 0, 9, 9)], extra="<difficult>1</difficult>")
    text = text.replace(
        "</annotation>",
        voc_xml([("dog", 0, 0, 9, 9)], None, "<difficult>0</difficult>").removeprefix("<annotation>"),
    )
    (root / "VOC2007/Annotations/a.xml").write_text(text)
    assert read_voc(root, difficult=difficult).ignore.tolist() == ignore


def test_optional_fields_may_be_missing(tmp_path):
    annotations = rewrite(write_voc(tmp_path), voc_xml([("cat", 0, 0, 9, 9)], size=None))
    assert annotations.sizes[0].tolist() == [-1, -1]
    assert annotations.ignore.tolist() == [False]


@pytest.mark.parametrize(
    "size",
    [
        "<size/>",
        "<size><width>64</width></size>",
        "<size><width>0</width><height>0</height></size>",
        "<size><width>x</width><height>48</height></size>",
        "<size><width>-64</width><height>48</height></size>",
    ],
)
def test_a_size_that_says_nothing_is_unknown(tmp_path, size):
    assert rewrite(write_voc(tmp_path), f"<annotation>{size}</annotation>").sizes[0].tolist() == [-1, -1]


def test_parts_of_an_object_are_not_objects(tmp_path):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
    part = f"<part><name>head</name>{box}</part>"
    annotations = rewrite(write_voc(tmp_path), voc_xml([("cat", 0, 0, 9, 9)], extra=part))
    assert annotations.boxes.tolist() == [[0, 0, 9, 9]]


def test_the_file_name_inside_the_annotation_is_never_used(tmp_path):
    text = voc_xml([]).replace(
        "<annotation>", "<annotation><filename>../../../etc/passwd</filename><path>/etc/passwd</path>"
    )
    assert rewrite(write_voc(tmp_path), text).name(0) == "VOC2007/JPEGImages/a.jpg"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_other_encodings_are_read_when_the_file_names_them(tmp_path, encoding):
    root = write_voc(tmp_path)
    head = '<?xml version="1.0" encoding="latin-1"?>' if encoding == "latin-1" else ""
    (root / "VOC2007/Annotations/a.xml").write_bytes(
        (head + voc_xml([("möwe", 0, 0, 9, 9)])).encode(encoding)
    )
    assert read_voc(root).class_names == ("möwe",)


def test_lists_may_have_windows_line_ends_a_byte_order_mark_and_blank_lines(tmp_path):
    root = write_voc(tmp_path)
    (root / "VOC2007/ImageSets/Main/train.txt").write_bytes("\ufeffa\r\n\r\n  b \r\n".encode())
    assert [read_voc(root).name(i) for i in range(2)] == [
        "VOC2007/JPEGImages/a.jpg",
        "VOC2007/JPEGImages/b.jpg",
    ]


def test_lists_per_class_have_a_second_column(tmp_path):
    root = write_voc(tmp_path)
    (root / "VOC2007/ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    assert len(read_voc(root, "cat_train")) == 2


def test_a_name_may_hold_blanks(tmp_path):
    root = write_voc(tmp_path, {"my cat 1": TWO["a"]})
    assert read_voc(root).file(0).is_file()


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG", ".bmp"])
def test_pictures_may_have_another_suffix(tmp_path, suffix):
    root = write_voc(tmp_path)
    (root / "VOC2007/JPEGImages/a.jpg").unlink()
    write_picture(root / f"VOC2007/JPEGImages/a{suffix}")
    assert read_voc(root).name(0) == f"VOC2007/JPEGImages/a{suffix}"


@pytest.mark.parametrize("inner", ["", "VOCdevkit"])
def test_the_root_is_the_devkit_or_the_folder_around_it(tmp_path, inner):
    write_voc(tmp_path / inner)
    assert len(read_voc(tmp_path)) == 2


def test_the_root_may_be_a_single_folder(tmp_path):
    write_voc(tmp_path)
    annotations = read_voc(tmp_path / "VOC2007")
    assert annotations.name(0) == "JPEGImages/a.jpg"
    assert annotations.file(0).is_file()


def years(tmp_path):
    write_voc(tmp_path, {"a": TWO["a"]}, "trainval", "VOC2007")
    write_voc(tmp_path, {"x": TWO["a"]}, "trainval", "VOC2012")
    return write_voc(tmp_path, {"t": []}, "test", "VOC2007")


def names(annotations):
    return [annotations.file(i).stem for i in range(len(annotations))]


def test_an_image_set_is_taken_from_every_year_that_has_it(tmp_path):
    root = years(tmp_path)
    assert names(read_voc(root, "trainval")) == ["a", "x"]
    assert names(read_voc(root, "test")) == ["t"]


def test_years_can_be_chosen(tmp_path):
    root = years(tmp_path)
    assert names(read_voc(root, "trainval", years=[2012])) == ["x"]
    assert names(read_voc(root, "trainval", years=["VOC2007"])) == ["a"]
    assert names(read_voc(root, ["VOC2012/trainval", "2007/test"])) == ["x", "t"]


def test_a_year_or_image_set_that_does_not_exist_is_named(tmp_path):
    root = years(tmp_path)
    with pytest.raises(DataError, match="2099"):
        read_voc(root, "trainval", years=[2099])
    with pytest.raises(DataError, match=r"'val'.*'test', 'trainval'"):
        read_voc(root, "val")


def test_without_image_sets_the_star_takes_every_file(tmp_path):
    root = write_voc(tmp_path)
    (root / "VOC2007/ImageSets/Main/train.txt").unlink()
    assert names(read_voc(root, "*")) == ["a", "b"]


def test_all_problems_are_raised_at_once_with_their_place(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": [], "c": []})
    (root / "VOC2007/Annotations/a.xml").write_text("<annotation>")
    (root / "VOC2007/Annotations/c.xml").write_text(voc_xml([("", 0, 0, 9, 9), ("cat", 0, 0, 9, 9)]))
    with pytest.raises(DataError) as error:
        read_voc(root)
    assert len(error.value.problems) == 2
    assert "VOC2007/Annotations/a.xml" in error.value.problems[0]
    assert "VOC2007/Annotations/c.xml, object 1" in error.value.problems[1]


def test_with_a_log_the_rest_is_read(tmp_path):
    root = write_voc(tmp_path, {"a": TWO["a"], "b": TWO["a"]})
    (root / "VOC2007/Annotations/a.xml").write_text("<annotation>")
    log = ProblemLog()
    annotations = read_voc(root, log=log)
    assert names(annotations) == ["b"]
    assert np.array_equal(annotations.labels, [0, 1])
    assert [problem.kind for problem in log.problems] == ["broken_file"]


def test_progress_is_told_now_and_then(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "VOC2007/ImageSets/Main/train.txt").write_text("a\n" * 600)
    calls = []
    read_voc(root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(256, 600), (512, 600)]
