"""Find out how a data folder is laid out, and read its splits with one class table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from boxmatch.data.annotations import Annotations, concatenate
from boxmatch.data.coco import read_coco
from boxmatch.data.headers import Progress
from boxmatch.data.images import PIXEL_LIMIT
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import read_yaml
from boxmatch.data.voc import ALL, Difficult, image_set_names, read_voc, voc_folders
from boxmatch.data.yolo_data_file import find_data_file
from boxmatch.data.yolo_txt import read_yolo
from boxmatch.errors import DataError

Format = Literal["voc", "coco", "yolo"]
SYNONYMS = {"val": ("val", "valid", "validation")}


@dataclass(frozen=True)
class ReadOptions:
    """What the readers may be told.

    Args:
        difficult: VOC: keep difficult objects as objects, drop them, or make them ignore regions.
        years: VOC: the years to look at; all when None.
        images: COCO: folder of the pictures; searched when None.
        pixel_limit: pictures with more pixels are refused before they are decoded.
        progress: called with (pictures done, pictures in all).
    """

    difficult: Difficult = "keep"
    years: tuple[str | int, ...] | None = None
    images: str | Path | None = None
    pixel_limit: int = PIXEL_LIMIT
    progress: Progress | None = None


def detect_format(root: str | Path) -> Format:
    """How a folder is laid out. With several layouts beside each other the first of voc, coco, yolo is taken.

    Raises:
        DataError: the folder does not exist or has none of the three layouts.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: {'a file, not a folder' if root.exists() else 'there is no such folder'}")
    if voc_folders(root):
        return "voc"
    files = coco_files(root)
    if any("annotations" in file for file in files):
        return "coco"
    try:
        find_data_file(root)
    except DataError:
        if files:  # any other json file, now that there is no data.yaml
            return "coco"
        raise DataError(
            f"{root}: found neither VOCyyyy/Annotations nor annotations/*.json (COCO) nor a YOLO data.yaml"
        ) from None
    return "yolo"


def coco_files(root: Path) -> list[str]:
    """Annotation files of a COCO folder, relative to the root.

    They are `annotations/*.json`, `*.json` and, as exported by some tools, `SPLIT/_annotations.coco.json`.
    """
    patterns = ("annotations/*.json", "*.json", "*/_annotations.coco.json")
    return [f.relative_to(root).as_posix() for pattern in patterns for f in sorted(root.glob(pattern))]


def find_entry(root: Path, layout: Format, split: str) -> str | None:
    """The image set (VOC), json file (COCO) or key of the data file (YOLO) that holds a split, None when
    there is none.

    "val" is also looked for as "valid" and "validation". Without any list of pictures everything is "train".

    Raises:
        DataError: several json files fit.
    """
    for name in SYNONYMS.get(split, (split,)):
        if layout == "voc":
            sets = image_set_names(voc_folders(root))
            found = name if name in sets else None
            if not sets and split == "train":
                return ALL
        elif layout == "coco":
            found = _coco_file(root, name, only=split == "train")
        else:
            found = name if read_yaml(find_data_file(root)).get(name) else None
        if found is not None:
            return found
    return None


def _coco_file(root: Path, split: str, *, only: bool) -> str | None:
    """`instances_SPLIT*.json` before others with the split in their name; with `only`, any single file."""
    files = coco_files(root)
    word = re.compile(rf"(?<![a-z]){re.escape(split)}(?![a-z])")  # "train2017" and not "restrained"
    named = [
        file for file in files if word.search(Path(file).stem) or file == f"{split}/_annotations.coco.json"
    ]
    matching = [file for file in named if "instances" in Path(file).stem] or named
    if only and not matching and len(files) == 1:
        return files[0]
    if len(matching) > 1:
        raise DataError(f"{root}: the json files {matching} may all be the split {split!r}; name one of them")
    return matching[0] if matching else None


def read_split(
    root: str | Path,
    entries: str | Sequence[str],
    *,
    layout: Format | Literal["auto"] = "auto",
    options: ReadOptions | None = None,
    log: ProblemLog | None = None,
) -> Annotations:
    """Read one split in any layout, several entries joined.

    Args:
        entries: VOC: image sets ("train", "VOC2007/trainval"). COCO: json files, or the split whose file is
            looked for. YOLO: keys of the data file.
        options: defaults when None.
        log: takes the problems; without it they are raised.

    Raises:
        DataError: as the reader of the layout.
    """
    root = Path(root)
    options = options or ReadOptions()
    names = [entries] if isinstance(entries, str) else list(entries)
    layout = detect_format(root) if layout == "auto" else layout
    if layout == "voc":
        return read_voc(
            root, names, years=options.years, difficult=options.difficult, progress=options.progress, log=log
        )
    if layout == "yolo":
        read = partial(read_yolo, root, pixel_limit=options.pixel_limit, progress=options.progress, log=log)
        return concatenate([read(name) for name in names])
    files = [name if name.endswith(".json") else find_entry(root, "coco", name) for name in names]
    if None in files:
        raise DataError(
            f"{root}: no json file for the split {names[files.index(None)]!r}; there are {coco_files(root)}"
        )
    return concatenate([read_coco(root, str(file), images=options.images, log=log) for file in files])
