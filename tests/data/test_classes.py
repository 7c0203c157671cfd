"""Class tables: one order everywhere, names near each other."""

import pytest

from boxmatch.data.classes import (
    VOC_CLASSES,
    class_list,
    class_name,
    nearest_name,
    similar_names,
    voc_classes,
)
from boxmatch.errors import DataError


def test_the_voc_classes_are_twenty_in_alphabetical_order():
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert (VOC_CLASSES.index("aeroplane"), VOC_CLASSES.index("tvmonitor")) == (0, 19)


def test_a_class_list_leads_and_what_it_lacks_follows(tmp_path):
    (tmp_path / "classes.txt").write_bytes("\ufeffRBC\r\n\r\n WBC \r\n".encode())
    assert voc_classes(tmp_path, ["b", "WBC", "a"]) == ("RBC", "WBC", "a", "b")


def test_names_are_in_alphabetical_order_without_a_list(tmp_path):
    assert voc_classes(tmp_path, ["dog", "cat", "Ant"]) == ("Ant", "cat", "dog")
    assert voc_classes(tmp_path, []) == ()


def test_a_part_of_voc_has_all_twenty_classes(tmp_path):
    assert voc_classes(tmp_path, VOC_CLASSES[::2]) == VOC_CLASSES
    assert voc_classes(tmp_path, [*VOC_CLASSES, "zebra"]) == (*VOC_CLASSES, "zebra")


def test_own_pictures_of_two_voc_classes_have_two_classes(tmp_path):
    assert voc_classes(tmp_path, ["person", "car"]) == ("car", "person")


def test_a_class_listed_twice_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"classes\.txt.*'a'.*twice"):
        class_list(tmp_path)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("catt", "cat"),
        ("CAT", "cat"),
        ("aeroplan", "aeroplane"),
        ("Platelet", "Platelets"),
        ("zebra", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case(name, nearest):
    assert nearest_name(name, ("cat", "dog", "aeroplane", "Platelets")) == nearest


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["RBC", "WBC", "Platelets"], []),
        (["RBC", "rbc"], [("RBC", "rbc")]),
        (["stop sign", "stop_sign", "StopSign"], [("stop sign", "stop_sign"), ("stop sign", "StopSign")]),
        (["aeroplane", "aeroplan"], [("aeroplane", "aeroplan")]),
        (["aeroplan", "aeroplane"], [("aeroplan", "aeroplane")]),
        (["class1", "class2", "car", "cars"], []),
        (["?", "!"], []),
        (list(VOC_CLASSES), []),
    ],
)
def test_slips_of_the_pen_are_found_and_other_names_are_left_alone(names, pairs):
    assert similar_names(names) == pairs


def test_blanks_around_and_within_a_name_are_made_plain():
    assert class_name("  traffic \n\t light ") == "traffic light"
    assert class_name("Ölkanne 🛢") == "Ölkanne 🛢"


@pytest.mark.parametrize("written", ["", "  ", "cat\x1b[31m", "cat\0", "cat\ud800", "cat\x7f"])
def test_names_that_would_harm_a_terminal_are_refused(written):
    with pytest.raises(DataError, match="expected a class name"):
        class_name(written)
