"""Reader of COCO instance files (json): boxes are x, y, width, height in pixels from 0, so x2 = x + width."""

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxmatch.data.annotations import UNKNOWN_SIZE, Annotations, from_columns
from boxmatch.data.classes import class_name
from boxmatch.data.coco_objects import Objects, look_up, read_objects, text, whole
from boxmatch.data.json_stream import stream_lists
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.errors import DataError


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
        images: folder of the pictures, relative to `root` or absolute; searched in the usual places when
            None. A folder outside `root` becomes the root of the result: whoever names it trusts it.
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
    for key, first, batch, non_finite in stream_lists(path, unread="segmentation"):
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


class _Content:
    """The columns of one file while it is read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.names: list[str] = []
        self.image_ids = array("q")
        self.sizes = array("i")
        self.categories: dict[int, str] = {}
        self.parts: list[Objects] = []

    def add_categories(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        """Read entries of the list `categories`."""
        for number, entry in enumerate(batch, start=first):
            place = f"categories[{number}]"
            try:
                key, name = whole(entry, "id"), class_name(text(entry, "name"))
            except DataError as error:
                log.add("broken_object", self.file, str(error), object=place)
                continue
            if key in self.categories or name in self.categories.values():
                log.add("duplicate_id", self.file, f"category {key} {name!r} appears twice", object=place)
                continue
            self.categories[key] = name

    def add_images(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        """Read entries of the list `images`."""
        for number, entry in enumerate(batch, start=first):
            try:
                key, name = whole(entry, "id"), text(entry, "file_name")
                width, height = (whole(entry, side, UNKNOWN_SIZE) for side in ("width", "height"))
            except DataError as error:
                log.add("broken_object", self.file, str(error), object=f"images[{number}]")
                continue
            known = 0 < width < 2**31 and 0 < height < 2**31
            self.image_ids.append(key)
            self.names.append(name)
            self.sizes.extend((width, height) if known else (UNKNOWN_SIZE, UNKNOWN_SIZE))

    def add_annotations(self, first: int, batch: list[Any], log: ProblemLog) -> None:
        """Read entries of the list `annotations`."""
        self.parts.append(read_objects(batch, first, self.file, log))

    def build(self, root: Path, path: Path, images: str | Path | None, log: ProblemLog) -> Annotations:
        """Join annotations and pictures by id."""
        root, folder = pictures_folder(root, path, images, self.names[:20])
        objects = Objects.concatenate(self.parts)
        self.parts.clear()
        kept, names = self._safe_names(root, folder, log)
        self.names.clear()
        listed_ids = np.frombuffer(self.image_ids, dtype=np.int64)
        image_ids = listed_ids[kept]
        image, known_image = look_up(objects.image_ids, image_ids)
        category_ids = np.array(sorted(self.categories), dtype=np.int64)
        label, known_label = look_up(objects.category_ids, category_ids)
        for row in np.flatnonzero(~known_image).tolist():
            key = int(objects.image_ids[row])
            if key not in listed_ids:  # a listed picture that was refused has its own entry in the log
                log.add("unknown_image", self.file, f"no image has the id {key}", object=objects.place(row))
        for row in np.flatnonzero(~known_label).tolist():
            message = f"category id {objects.category_ids[row]} is not one of {category_ids.tolist()[:100]}"
            log.add("class_id", self.file, message, object=objects.place(row))
        keep = known_image & known_label
        if not keep.all():
            objects, image, label = objects.select(keep), image[keep], label[keep]
        return from_columns(
            root,
            names=names,
            sizes=np.frombuffer(self.sizes, dtype=np.int32).reshape(-1, 2)[kept],
            image_ids=image_ids,
            image_of_box=image,
            boxes=objects.boxes,
            labels=label,
            ignore=objects.crowd,
            areas=objects.areas,
            object_ids=objects.ids,
            class_names=[self.categories[key] for key in category_ids.tolist()],
            class_ids=category_ids.tolist(),
            object_kind="annotation",
        )

    def _safe_names(self, root: Path, folder: str, log: ProblemLog) -> tuple[np.ndarray, list[str]]:
        """Pictures that may be read, each id and name once: their positions and names."""
        kept, names = array("q"), []
        seen_ids: set[int] = set()
        seen_names: set[str] = set()
        for position, (key, written) in enumerate(zip(self.image_ids, self.names, strict=True)):
            try:
                name = safe_name(root, written, folder)
            except DataError as error:
                log.add("unsafe_path", self.file, str(error), object=f"image {key}")
                continue
            if key in seen_ids or name in seen_names:
                message = (
                    f"the id {key} or the file {name!r} is listed twice; give each picture an id of its own"
                )
                log.add("duplicate_id", self.file, message, object=f"image {key}")
                continue
            seen_ids.add(key)
            seen_names.add(name)
            kept.append(position)
            names.append(name)
        return np.frombuffer(kept, dtype=np.int64), names


def pictures_folder(
    root: Path, path: Path, images: str | Path | None, names: Sequence[str]
) -> tuple[Path, str]:
    """The data root and the folder of the pictures relative to it.

    Without `images` the first of these that holds one of `names`: the folder named as the file (`train2017`
    for `instances_train2017.json`) in the root or in `images/`, the folder of the file, `images/`, a VOC
    `JPEGImages`, the root.
    """
    if images is not None:
        folder = (root / images).resolve()
        real_root = root.resolve()
        if folder.is_relative_to(real_root):
            return root, folder.relative_to(real_root).as_posix()
        return folder, ""
    split = path.stem.removeprefix("instances_")
    beside = path.parent.relative_to(root).as_posix() if path.parent.is_relative_to(root) else ""
    candidates = [split, f"images/{split}", beside, "images", "JPEGImages"]
    candidates += [f.relative_to(root).as_posix() for f in sorted(root.glob("VOCdevkit/VOC*/JPEGImages"))]
    for candidate in candidates:
        if any(_is_picture(root, name, candidate) for name in names):
            return root, candidate
    return root, ""


def _is_picture(root: Path, name: str, folder: str) -> bool:
    try:
        return (root / safe_name(root, name, folder)).is_file()
    except (DataError, OSError):
        return False
