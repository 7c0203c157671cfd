"""Reader of COCO instance files (json): boxes are x, y, width, height in pixels from 0, so x2 = x + width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxmatch.data.annotations import UNKNOWN_SIZE, Annotations, from_columns
from boxmatch.data.json_stream import stream_lists
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.errors import DataError

COLUMNS = ("id", "image_id", "category_id")


def read_coco(
    root: str | Path,
    file: str | Path,
    *,
    images: str | Path | None = None,
    log: ProblemLog | None = None,
) -> Annotations:
    """Read one COCO file; crowd regions get the ignore flag, pictures without annotations stay.

    Args:
        root: the data root.
        file: the json file, relative to `root` or absolute.
        images: folder of the pictures, relative to `root` or absolute; searched in the usual places when None. A folder
            outside `root` becomes the root of the result: whoever names it trusts it.
        log: takes the problems, which are left out of the result. Without it they are raised.

    Raises:
        DataError: the file cannot be read at all; without `log`, anything wrong in it.
    """
    root = Path(root)
    path = root / file
    own_log = ProblemLog() if log is None else log
    content = _Content(path.name)
    handlers: dict[str, Callable[[int, list[Any], ProblemLog], None]] = {
        "images": content.add_images,
        "annotations": content.add_annotations,
        "categories": content.add_categories,
    }
    seen = set()
    for key, first, batch, non_finite in stream_lists(path):
        seen.add(key)
        for place in non_finite:
            own_log.add(
                "non_finite", path.name, "NaN and Infinity are not JSON numbers; write a number", object=place
            )
        if key in handlers:
            handlers[key](first, batch, own_log)
    missing = [key for key in ("images", "categories") if key not in seen]
    if missing:
        raise DataError(f"{path}: no list {missing[0]!r}; is this a COCO instances file?")
    result = content.build(root, path, images, own_log)
    if log is None:
        own_log.refuse()
    return result


@dataclass
class _Content:
    """The columns of one file while it is read."""

    file: str
    names: list[str] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    ids: list[np.ndarray] = field(default_factory=list)  # (n, 3): id, image id, category id
    boxes: list[np.ndarray] = field(default_factory=list)  # (n, 4): x, y, width, height
    areas: list[np.ndarray] = field(default_factory=list)
    crowd: list[np.ndarray] = field(default_factory=list)

    def add_categories(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        for number, entry in enumerate(batch, start=first):
            try:
                key, name = _integer(entry, "id"), _text(entry, "name").strip()
            except DataError as error:
                log.add("broken_file", self.file, str(error), object=f"categories[{number}]")
                continue
            if key in self.categories or name in self.categories.values():
                log.add(
                    "duplicate_id",
                    self.file,
                    f"category {key} {name!r} appears twice",
                    object=f"categories[{number}]",
                )
                continue
            self.categories[key] = name

    def add_images(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        for number, entry in enumerate(batch, start=first):
            try:
                key, name = _integer(entry, "id"), _text(entry, "file_name")
                size = (_integer(entry, "width", UNKNOWN_SIZE), _integer(entry, "height", UNKNOWN_SIZE))
            except DataError as error:
                log.add("broken_object", self.file, str(error), object=f"images[{number}]")
                continue
            self.image_ids.append(key)
            self.names.append(name)
            self.sizes.append(size if 0 < min(size) and max(size) < 2**31 else (UNKNOWN_SIZE, UNKNOWN_SIZE))

    def add_annotations(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        try:
            columns = _columns(batch)
        except (KeyError, TypeError, ValueError, OverflowError):  # one bad entry: find it, entry by entry
            good = []
            for number, entry in enumerate(batch, start=first):
                try:
                    good.append(_checked(entry, number))
                except DataError as error:
                    log.add("broken_object", self.file, str(error), object=f"annotations[{number}]")
            columns = _columns(good)
        for store, column in zip((self.ids, self.boxes, self.areas, self.crowd), columns, strict=True):
            store.append(column)

    def build(self, root: Path, path: Path, images: str | Path | None, log: ProblemLog) -> Annotations:
        """Join annotations and pictures by id."""
        empty = _columns([])
        ids, xywh, areas, crowd = (
            np.concatenate([blank, *parts])
            for blank, parts in zip(empty, (self.ids, self.boxes, self.areas, self.crowd), strict=True)
        )
        root, folder = pictures_folder(root, path, images, self.names[:20])
        kept, names = self._safe_names(root, folder, log)
        image_ids = np.array([self.image_ids[k] for k in kept], dtype=np.int64)
        image, found_image = _look_up(ids[:, 1], image_ids)
        category_ids = np.array(sorted(self.categories), dtype=np.int64)
        label, found_label = _look_up(ids[:, 2], category_ids)
        listed = np.isin(ids[:, 1], np.array(self.image_ids, dtype=np.int64))
        for row in np.flatnonzero(~listed):
            log.add(
                "unknown_image",
                self.file,
                f"no image has the id {ids[row, 1]}",
                object=f"annotation {ids[row, 0]}",
            )
        for row in np.flatnonzero(~found_label):
            message = f"category id {ids[row, 2]} is not among the categories {category_ids.tolist()[:100]}"
            log.add("class_id", self.file, message, object=f"annotation {ids[row, 0]}")
        keep = found_image & found_label
        xyxy = xywh[keep]
        xyxy[:, 2:] += xyxy[:, :2]
        areas = np.where(np.isfinite(areas[keep]), areas[keep], xywh[keep, 2] * xywh[keep, 3])
        sizes = np.array([self.sizes[k] for k in kept], dtype=np.int32).reshape(-1, 2)
        return from_columns(
            root,
            names=names,
            sizes=sizes,
            image_ids=image_ids,
            image_of_box=image[keep],
            boxes=xyxy,
            labels=label[keep],
            ignore=crowd[keep],
            areas=areas,
            object_ids=ids[keep, 0],
            class_names=[self.categories[key] for key in category_ids.tolist()],
            class_ids=category_ids.tolist(),
            object_kind="annotation",
        )

    def _safe_names(self, root: Path, folder: str, log: ProblemLog) -> tuple[list[int], list[str]]:
        """Pictures that may be read, each id and name once."""
        kept, names = [], []
        seen_ids: set[int] = set()
        seen_names: set[str] = set()
        for position, (key, written) in enumerate(zip(self.image_ids, self.names, strict=True)):
            try:
                name = safe_name(root, written, folder)
            except DataError as error:
                log.add("unsafe_path", self.file, str(error), object=f"image {key}")
                continue
            if key in seen_ids or name in seen_names:
                log.add(
                    "duplicate_id", self.file, f"image {key} {name!r} is listed twice", object=f"image {key}"
                )
                continue
            seen_ids.add(key)
            seen_names.add(name)
            kept.append(position)
            names.append(name)
        return kept, names


def pictures_folder(
    root: Path, path: Path, images: str | Path | None, names: Sequence[str]
) -> tuple[Path, str]:
    """The data root and the folder of the pictures relative to it.

    Without `images` the first of these that holds one of `names`: the folder named as the file (`train2017` for
    `instances_train2017.json`) in the root or in `images/`, the folder of the file, `images/`, a VOC `JPEGImages`, the root.
    """
    if images is not None:
        folder = (root / images).resolve()
        real_root = root.resolve()
        return (
            (root, folder.relative_to(real_root).as_posix())
            if folder.is_relative_to(real_root)
            else (folder, "")
        )
    split = path.stem.removeprefix("instances_")
    beside = path.parent.relative_to(root).as_posix() if path.parent.is_relative_to(root) else ""
    candidates = [split, f"images/{split}", beside, "images", "JPEGImages"]
    candidates += [f.relative_to(root).as_posix() for f in sorted(root.glob("VOCdevkit/VOC*/JPEGImages"))]
    for folder_name in candidates:
        for name in names:
            try:
                if (root / safe_name(root, name, folder_name)).is_file():
                    return root, folder_name
            except (DataError, OSError, ValueError):
                continue
    return root, ""


def _look_up(values: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of each value in `keys`, and whether it is there."""
    if not len(keys):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys, values, sorter=order).clip(max=len(keys) - 1)
    position = order[place]
    return position, keys[position] == values


def _columns(batch: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids (n, 3), boxes (n, 4), areas (n,) and crowd flags (n,) of annotations.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: some entry is not as COCO describes it.
    """
    if not batch:
        return np.zeros((0, 3), np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool)
    ids = np.array([[entry[key] for key in COLUMNS] for entry in batch])
    boxes = np.array([entry["bbox"] for entry in batch])
    areas = np.array([entry.get("area", np.nan) for entry in batch])
    crowd = np.array([entry.get("iscrowd", 0) for entry in batch])
    if (
        ids.dtype.kind != "i"
        or any(c.dtype.kind not in "if" for c in (boxes, areas))
        or crowd.dtype.kind not in "ib"
    ):
        raise TypeError("not numbers")
    if boxes.shape != (len(batch), 4):
        raise ValueError("not four numbers")
    return ids.astype(np.int64), boxes.astype(np.float64), areas.astype(np.float64), crowd.astype(bool)


def _checked(entry: Any, number: int) -> dict[str, Any]:
    """An annotation with the four fields that are read.

    Raises:
        DataError: one is missing or of the wrong type.
    """
    box = entry.get("bbox") if isinstance(entry, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise DataError(f"expected four numbers in 'bbox', got {box!r:.80}")
    area = entry.get("area")
    return {
        "id": _integer(entry, "id", number),
        "image_id": _integer(entry, "image_id"),
        "category_id": _integer(entry, "category_id"),
        "bbox": [float(v) for v in box],
        "area": float(area) if _is_number(area) else float("nan"),
        "iscrowd": bool(entry.get("iscrowd")),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _integer(entry: Any, key: str, default: int | None = None) -> int:
    value = entry.get(key, default) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or abs(value) >= 2**63:
        raise DataError(f"expected a whole number in {key!r}, got {value!r:.80}")
    return value


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"expected a text in {key!r}, got {value!r:.80}")
    return value
