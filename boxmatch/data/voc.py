"""Reader of Pascal VOC folders.

Coordinates in the XML are pixels counted from 1 with inclusive ends (VOC2007 development kit documentation).
This file is the one place that changes them: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax. The picture
is found by the name in the image set; <filename>, <folder> and <path> are never read, because annotation
tools leave the paths of another machine there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from boxmatch.data.annotations import UNKNOWN_SIZE, Annotations
from boxmatch.data.classes import class_name, voc_classes
from boxmatch.data.columns import Columns
from boxmatch.data.headers import Progress
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import parse_xml, read_text
from boxmatch.errors import DataError

LISTS = "ImageSets/Main"
ALL = "*"  # the image set of all XML files
PROGRESS_EVERY = 256  # pictures; about 0.1 s
Difficult = Literal["keep", "drop", "ignore"]


def read_voc(
    root: str | Path,
    image_sets: str | Sequence[str] = "train",
    *,
    years: Sequence[str | int] | None = None,
    difficult: Difficult = "keep",
    progress: Progress | None = None,
    log: ProblemLog | None = None,
) -> Annotations:
    """Read image sets of a VOC devkit.

    Args:
        root: a folder with `VOC2007`, `VOC2012`, ..., one with a `VOCdevkit`, or a single folder with
            `Annotations` and `JPEGImages`.
        image_sets: names of files in `ImageSets/Main` without `.txt`, taken from every year that has them,
            or from one year when written as `VOC2007/trainval`; "*" takes every XML file.
        years: the years to look at; all when None.
        difficult: keep difficult objects as objects, drop them, or set their ignore flag.
        progress: called now and then with (pictures done, pictures in all) of an image set.
        log: takes the problems, which are left out of the result. Without it they are raised.

    Raises:
        DataError: no such folder or image set; without `log`, anything wrong in the files.
    """
    root = Path(root)
    own_log = ProblemLog() if log is None else log
    columns = Columns()
    classes: dict[str, int] = {}
    for folder, image_set in _image_sets(
        root, [image_sets] if isinstance(image_sets, str) else image_sets, years
    ):
        names = listed_names(folder, image_set)
        for position, name in enumerate(names):
            _read_picture(root, folder, name, difficult, columns, classes, own_log)
            if progress is not None and position % PROGRESS_EVERY == PROGRESS_EVERY - 1:
                progress(position + 1, len(names))
    if log is None:
        own_log.refuse()
    table = voc_classes(root, classes)
    relabel = [table.index(name) for name in classes]
    return columns.build(root, table, relabel=relabel, object_kind="object")


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
    """Folders and the name of an image set in each, in the order asked for."""
    folders = voc_folders(root, years)
    if not folders:
        raise DataError(
            f"{root}: expected folders VOCyyyy/Annotations (years: {years or 'any'}); is this the root?"
        )
    found = []
    for wanted in image_sets:
        year, _, image_set = wanted.rpartition("/")
        matching = [
            (folder, image_set)
            for folder in folders
            if (not year or folder.name.removeprefix("VOC") == year.removeprefix("VOC"))
            and (image_set == ALL or (folder / LISTS / f"{image_set}.txt").is_file())
        ]
        if not matching:
            there = image_set_names(folders)
            raise DataError(f"{root}: no image set {wanted!r} in {LISTS}; there are {there[:20]}")
        found += matching
    return list(dict.fromkeys(found))


def image_set_names(folders: Sequence[Path]) -> list[str]:
    """Names of the image sets of VOC folders."""
    return sorted({file.stem for folder in folders for file in (folder / LISTS).glob("*.txt")})


def listed_names(folder: Path, image_set: str) -> list[str]:
    """Names of the pictures of an image set, without suffix; those of all XML files for the set "*".

    Raises:
        DataError: the list cannot be read.
    """
    annotations = folder / "Annotations"
    if image_set == ALL:
        return sorted(
            file.relative_to(annotations).with_suffix("").as_posix() for file in annotations.rglob("*.xml")
        )
    lines = [line.strip() for line in read_text(folder / LISTS / f"{image_set}.txt").splitlines()]
    # Lists per class hold a second column: "000012 -1". A name with a blank in it is one whose file exists.
    return [
        line if " " not in line or _exists(annotations / f"{line}.xml") else line.split()[0]
        for line in lines
        if line
    ]


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds NUL
        return False


def _read_picture(
    root: Path,
    folder: Path,
    name: str,
    difficult: Difficult,
    columns: Columns,
    classes: dict[str, int],
    log: ProblemLog,
) -> None:
    base = folder.relative_to(root).as_posix()
    try:
        xml_name = safe_name(root, f"Annotations/{name}.xml", base)
        picture = safe_name(root, f"JPEGImages/{name}{_suffix(folder, name)}", base)
    except DataError as error:
        log.add("unsafe_path", f"{base}/{LISTS}", str(error))
        return
    try:
        tree = parse_xml(root / xml_name)
    except DataError as error:
        log.add("broken_file", xml_name, str(error))
        return
    columns.add_picture(picture, *_size(tree))
    for number, element in enumerate(tree.findall("object"), start=1):
        try:
            name_of_class, box = _read_object(element)
        except DataError as error:
            log.add("broken_object", xml_name, str(error), object=f"object {number}")
            continue
        is_difficult = (element.findtext("difficult") or "").strip() == "1"
        if not (is_difficult and difficult == "drop"):
            label = classes.setdefault(name_of_class, len(classes))
            columns.add_box(box, label, number, ignore=is_difficult and difficult == "ignore")


def _suffix(folder: Path, name: str) -> str:
    """Suffix of a picture: `.jpg` as in VOC unless another one exists."""
    for suffix in (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG", ".bmp", ".webp", ".tif", ".tiff"):
        if _exists(folder / "JPEGImages" / f"{name}{suffix}"):
            return suffix
    return ".jpg"


def _size(tree: Element) -> tuple[int, int]:
    width, height = (_whole(tree.findtext(f"size/{name}")) for name in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else (UNKNOWN_SIZE, UNKNOWN_SIZE)


def _whole(text: str | None) -> int:
    """A whole number that fits an image size, 0 for anything else: the picture's header has the size too."""
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 9 else 0


def _read_object(element: Element) -> tuple[str, tuple[float, float, float, float]]:
    """Class name and box of an object; here the coordinates leave the VOC convention.

    Raises:
        DataError: a part is missing or no number.
    """
    name = class_name(element.findtext("name") or "")
    box = element.find("bndbox")
    if box is None:
        raise DataError(f"the object {name!r} has no <bndbox>")
    xmin, ymin, xmax, ymax = (_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    return name, (xmin - 1, ymin - 1, xmax, ymax)


def _number(box: Element, side: str) -> float:
    text = (box.findtext(side) or "").strip()
    try:
        return float(text)
    except ValueError:
        raise DataError(f"expected a number in <{side}>, got {text!r:.40}") from None
