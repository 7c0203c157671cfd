"""Reader of Pascal VOC folders.

Coordinates in the XML are pixels counted from 1 with inclusive ends (VOC2007 development kit documentation). This file is the
one place that changes them: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

import numpy as np

from boxmatch.data.annotations import UNKNOWN_SIZE, Annotations, from_columns
from boxmatch.data.classes import voc_classes
from boxmatch.data.images import SUFFIXES
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import parse_xml, read_text
from boxmatch.errors import DataError

Difficult = Literal["keep", "drop", "ignore"]


def read_voc(
    root: str | Path,
    image_sets: str | Sequence[str] = "train",
    *,
    years: Sequence[str | int] | None = None,
    difficult: Difficult = "keep",
    log: ProblemLog | None = None,
) -> Annotations:
    """Read image sets of a VOC devkit.

    Args:
        root: a folder with `VOC2007`, `VOC2012`, ..., one with a `VOCdevkit`, or a single folder with `Annotations` and
            `JPEGImages`.
        image_sets: names of files in `ImageSets/Main` without `.txt`, taken from every year that has them, or from one year
            when written as `VOC2007/trainval`.
        years: the years to look at; all when None.
        difficult: keep difficult objects as objects, drop them, or set their ignore flag.
        log: takes the problems, which are left out of the result. Without it they are raised.

    Raises:
        DataError: no such folder or image set; without `log`, anything wrong in the files.
    """
    own_log = ProblemLog() if log is None else log
    columns = _Columns()
    for folder, image_set in _image_sets(
        Path(root), [image_sets] if isinstance(image_sets, str) else image_sets, years
    ):
        _read_set(Path(root), folder, image_set, difficult, columns, own_log)
    if log is None:
        own_log.refuse()
    names = voc_classes(Path(root), set(columns.classes))
    position = {name: number for number, name in enumerate(names)}
    return from_columns(
        Path(root),
        names=columns.files,
        sizes=np.array(columns.sizes, dtype=np.int32),
        image_of_box=np.array(columns.image, dtype=np.int64),
        boxes=np.array(columns.boxes, dtype=np.float32),
        labels=np.array([position[name] for name in columns.classes], dtype=np.int32),
        ignore=np.array(columns.ignore, dtype=bool),
        object_ids=np.array(columns.numbers, dtype=np.int64),
        class_names=names,
    )


@dataclass
class _Columns:
    files: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    ignore: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def voc_folders(root: Path, years: Sequence[str | int] | None = None) -> list[Path]:
    """The folders with `Annotations` and `JPEGImages` below a root, by name: `VOC2007` before `VOC2012`."""
    found = [root] if (root / "Annotations").is_dir() else []
    for parent in (root, root / "VOCdevkit"):
        found += sorted(f.parent for f in parent.glob("VOC*/Annotations") if f.is_dir())
    if years is not None:
        wanted = {str(year).removeprefix("VOC") for year in years}
        found = [folder for folder in found if folder.name.removeprefix("VOC") in wanted]
    return found


def _image_sets(
    root: Path, image_sets: Sequence[str], years: Sequence[str | int] | None
) -> list[tuple[Path, str]]:
    folders = voc_folders(root, years)
    if not folders:
        raise DataError(
            f"{root}: expected folders VOCyyyy/Annotations (years: {years or 'any'}); is this the VOC root?"
        )
    found = []
    for wanted in image_sets:
        year, _, image_set = wanted.rpartition("/")
        matching = [
            (folder, image_set)
            for folder in folders
            if (not year or folder.name.removeprefix("VOC") == year.removeprefix("VOC"))
            and (folder / "ImageSets" / "Main" / f"{image_set}.txt").is_file()
        ]
        if not matching:
            there = sorted(
                {f.stem for folder in folders for f in (folder / "ImageSets" / "Main").glob("*.txt")}
            )
            raise DataError(f"{root}: no image set {wanted!r} in ImageSets/Main; there are {there[:20]}")
        found += matching
    return list(dict.fromkeys(found))


def _read_set(
    root: Path, folder: Path, image_set: str, difficult: Difficult, columns: _Columns, log: ProblemLog
) -> None:
    base = folder.relative_to(root).as_posix()
    base = "" if base == "." else base + "/"
    list_file = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    suffixes = _suffixes(folder / "JPEGImages")
    for line in read_text(list_file).splitlines():
        name = line.strip()
        if not name:
            continue
        if not (folder / "Annotations" / f"{name}.xml").is_file():
            name = name.split()[0]  # per-class lists: "000012 -1"
        try:
            picture = safe_name(root, f"{base}JPEGImages/{name}{suffixes.get(name, '.jpg')}")
            xml_name = safe_name(root, f"{base}Annotations/{name}.xml")
        except DataError as error:
            log.add("unsafe_path", f"{base}ImageSets/Main/{image_set}.txt", str(error))
            continue
        try:
            tree = parse_xml(root / xml_name)
        except DataError as error:
            log.add("broken_file", xml_name, str(error))
            continue
        columns.files.append(picture)
        columns.sizes.append(_size(tree))
        for number, element in enumerate(tree.findall("object"), start=1):
            try:
                _read_object(element, number, difficult, columns)
            except DataError as error:
                log.add("broken_object", xml_name, str(error), object=f"object {number}")


def _suffixes(pictures: Path) -> dict[str, str]:
    """Suffix of each picture that has no `.jpg` file; one listing instead of a search per picture."""
    if not pictures.is_dir():
        return {}
    found: dict[str, str] = {}
    for file in sorted(pictures.iterdir()):
        if file.suffix.lower() in SUFFIXES and (file.suffix == ".jpg" or file.stem not in found):
            found[file.stem] = file.suffix
    return found


def _size(tree: Element) -> tuple[int, int]:
    values = []
    for name in ("width", "height"):
        text = (tree.findtext(f"size/{name}") or "").strip()
        value = int(text) if text.isdecimal() and len(text) < 9 else 0
        values.append(value if value > 0 else UNKNOWN_SIZE)
    return (values[0], values[1]) if UNKNOWN_SIZE not in values else (UNKNOWN_SIZE, UNKNOWN_SIZE)


def _read_object(element: Element, number: int, difficult: Difficult, columns: _Columns) -> None:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError("the object has no <name>")
    box = element.find("bndbox")
    if box is None:
        raise DataError(f"the object {name!r} has no <bndbox>")
    xmin, ymin, xmax, ymax = (_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    is_difficult = (element.findtext("difficult") or "").strip() == "1"
    if is_difficult and difficult == "drop":
        return
    columns.image.append(len(columns.files) - 1)
    columns.boxes.append((xmin - 1, ymin - 1, xmax, ymax))
    columns.classes.append(name)
    columns.ignore.append(is_difficult and difficult == "ignore")
    columns.numbers.append(number)


def _number(box: Element, side: str) -> float:
    text = (box.findtext(side) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"expected a number in <{side}>, got {text!r}") from None
    return value if abs(value) <= 1e9 else math.copysign(math.inf, value) if value == value else value
