"""The same pictures in three layouts give the same boxes, on the shared sets and on tiny ones."""

from pathlib import Path

import numpy as np
import pytest
from folders import TWO, write_coco, write_voc, write_yolo

from boxmatch.data.annotations import Annotations
from boxmatch.data.load import load_splits
from boxmatch.data.read import read_split

LAYOUTS = ("voc", "coco", "yolo")
SIX_DIGITS = 1e-3  # px: YOLO files hold six digits of 640 px, twice


def assert_same(one: Annotations, other: Annotations, tolerance: float = 0) -> None:
    assert one.class_names == other.class_names
    assert [Path(one.name(i)).stem for i in range(len(one))] == [
        Path(other.name(i)).stem for i in range(len(other))
    ]
    assert np.array_equal(one.offsets, other.offsets)
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.sizes, other.sizes)
    assert np.abs(one.boxes - other.boxes).max(initial=0) <= tolerance


@pytest.fixture(scope="module")
def bccd(data_dir: Path) -> dict[str, dict[str, Annotations]]:
    """Splits of the blood cell set by layout, as the readers give them."""
    return {
        layout: {
            split: read_split(data_dir / "bccd", split, layout=layout) for split in ("train", "val", "test")
        }
        for layout in LAYOUTS
    }


@pytest.mark.parametrize(
    ("split", "pictures", "boxes"), [("train", 205, 2805), ("val", 87, 1138), ("test", 72, 945)]
)
def test_bccd_has_the_same_boxes_in_all_layouts(bccd, split, pictures, boxes):
    voc, coco, yolo = (bccd[layout][split] for layout in LAYOUTS)
    assert (len(voc), len(voc.boxes)) == (pictures, boxes)
    assert_same(voc, coco)
    assert_same(voc, yolo, SIX_DIGITS)
    assert all(voc.file(i) == yolo.file(i) == coco.file(i) for i in range(pictures))
    assert voc.file(0).is_file()


def test_bccd_classes_keep_the_order_of_the_class_list(bccd):
    assert bccd["voc"]["train"].class_names == ("RBC", "WBC", "Platelets")
    assert bccd["coco"]["train"].class_counts().tolist() == [2382, 214, 209]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_two_zero_size_boxes_of_bccd_are_reported(data_dir, layout):
    checked, report = load_splits(data_dir / "bccd", layout=layout)
    found = [(p.split, Path(p.file).stem, p.kind, p.action) for p in report.problems]
    assert sorted(found) == [
        ("train", "BloodImage_00343", "zero_size", "drop"),
        ("val", "BloodImage_00338", "zero_size", "drop"),
    ]
    assert report.errors == 0
    assert [len(checked[split].boxes) for split in ("train", "val")] == [2804, 1137]


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_mini_has_the_same_boxes_as_coco_and_yolo(data_dir, split):
    coco, yolo = (read_split(data_dir / "coco_mini", split, layout=layout) for layout in ("coco", "yolo"))
    assert_same(coco.select_boxes(~coco.ignore), yolo, SIX_DIGITS)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_mini_has_the_same_voc_classes_in_voc_layout(data_dir, split):
    """The VOC files are rounded to whole pixels outwards or inwards: a corner moves by at most one."""
    voc = read_split(data_dir / "coco_mini", split, layout="voc")
    coco = read_split(data_dir / "coco_mini", split, layout="coco")
    renamed = {
        "airplane": "aeroplane",
        "motorcycle": "motorbike",
        "couch": "sofa",
        "tv": "tvmonitor",
        "dining table": "diningtable",
        "potted plant": "pottedplant",
    }
    names = [renamed.get(name, name) for name in coco.class_names]
    shared = coco.select_boxes(
        np.isin(coco.labels, [k for k, name in enumerate(names) if name in voc.class_names])
    )
    assert np.array_equal(shared.offsets, voc.offsets)
    assert [names[label] for label in shared.labels] == [voc.class_names[label] for label in voc.labels]
    assert np.abs(shared.boxes - voc.boxes).max() <= 1


def test_coco_mini_keeps_crowd_regions_empty_pictures_and_the_official_ids(data_dir):
    coco = read_split(data_dir / "coco_mini", "train", layout="coco")
    assert (len(coco), len(coco.boxes), int(coco.ignore.sum())) == (33, 173, 2)
    assert (len(coco.class_names), coco.class_ids[-1]) == (80, 90)
    assert int((np.diff(coco.offsets) == 0).sum()) == 1
    assert coco.file(0).is_file()


@pytest.mark.parametrize("pictures", [TWO, {"a": [], "b": []}])
def test_a_tiny_set_is_the_same_in_all_layouts(tmp_path, pictures):
    if not any(pictures.values()):  # an empty class list is no YOLO data set
        write_voc(tmp_path / "voc", pictures)
        write_coco(tmp_path / "coco", pictures=pictures)
        voc, coco = (
            load_splits(tmp_path / layout, {"train": "train"})[0]["train"] for layout in ("voc", "coco")
        )
        assert (len(voc), len(voc.boxes), len(coco), len(coco.boxes)) == (2, 0, 2, 0)
        return
    for layout, write in (("voc", write_voc), ("coco", write_coco), ("yolo", write_yolo)):
        write(tmp_path / layout, pictures=pictures)
    voc, coco, yolo = (load_splits(tmp_path / layout, {"train": "train"})[0]["train"] for layout in LAYOUTS)
    assert_same(voc, coco)
    assert_same(voc, yolo, SIX_DIGITS)
    assert voc.boxes.tolist() == [[4, 6, 24, 26], [10, 10, 50, 40]]
