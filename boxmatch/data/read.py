"""Find out how a data folder is laid out, and read its splits with one class table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from boxmatch.data.annotations import Annotations, concatenate
from boxmatch.data.coco import read_coco
from boxmatch.data.images import PIXEL_LIMIT
from boxmatch.data.problems import ProblemLog
from boxmatch.data.voc import Difficult, read_voc, voc_folders
from boxmatch.data.yolo_txt import Progress, find_data_file, read_yolo
from boxmatch.errors import DataError

Format = Literal["voc", "coco", "yolo"]


def detect_format(root: str | Path) -> Format:
    """How a folder is laid out. With several layouts beside each other the first of voc, coco, yolo is taken.

    Raises:
        DataError: the folder does not exist or has none of the three layouts.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    if voc_folders(root):
        return "voc"
    if coco_files(root):
        return "coco"
    try:
        find_data_file(root)
    except DataError:
        raise DataError(
            f"{root}: expected VOCyyyy/Annotations (VOC), annotations/*.json (COCO) or data.yaml (YOLO); found none"
        ) from None
    return "yolo"


def coco_files(root: Path) -> list[str]:
    """Annotation files of a COCO folder, relative to the root: `annotations/*.json`, `*.json`, `SPLIT/_annotations.coco.json`."""
    patterns = ("annotations/*.json", "*.json", "*/_annotations.coco.json")
    return [f.relative_to(root).as_posix() for pattern in patterns for f in sorted(root.glob(pattern))]


def read_split(
    root: str | Path,
    entries: str | Sequence[str],
    *,
    format: Format | Literal["auto"] = "auto",
    difficult: Difficult = "keep",
    years: Sequence[str | int] | None = None,
    images: str | Path | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    progress: Progress | None = None,
    log: ProblemLog | None = None,
) -> Annotations:
    """Read one split in any layout, several entries joined.

    Args:
        entries: VOC: image sets ("train", "VOC2007/trainval"); COCO: json files, or "train" for the one whose name holds it; YOLO:
            keys of the data file.

    Raises:
        DataError: as the reader of the layout.
    """
    root = Path(root)
    entries = [entries] if isinstance(entries, str) else list(entries)
    layout = detect_format(root) if format == "auto" else format
    if layout == "voc":
        return read_voc(root, entries, years=years, difficult=difficult, log=log)
    if layout == "coco":
        return concatenate(
            [read_coco(root, _coco_file(root, entry), images=images, log=log) for entry in entries]
        )
    return concatenate(
        [read_yolo(root, entry, pixel_limit=pixel_limit, progress=progress, log=log) for entry in entries]
    )


def _coco_file(root: Path, entry: str) -> str:
    if entry.endswith(".json"):
        return entry
    files = coco_files(root)
    matching = [file for file in files if file.split("/")[0] == entry and "/_annotations" in file]
    matching = matching or [
        file for file in files if entry in Path(file).stem and "instances" in Path(file).stem
    ]
    matching = matching or [file for file in files if entry in Path(file).stem]
    if len(matching) != 1:
        raise DataError(
            f"{root}: expected one json file for the split {entry!r}, got {matching or files}; name the file"
        )
    return matching[0]


def read_splits(
    root: str | Path, splits: Mapping[str, str | Sequence[str]], *, format: Format | Literal["auto"] = "auto"
) -> dict[str, Annotations]:
    """Several splits under one class table."""
    read = {name: read_split(root, entries, format=format) for name, entries in splits.items()}
    class_names = list(dict.fromkeys(name for part in read.values() for name in part.class_names))
    return {name: part.with_classes(class_names) for name, part in read.items()}
