"""Checks of flat annotations before training: each kind of fault is one array operation over all boxes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from boxmatch.data.annotations import UNKNOWN_SIZE, Annotations
from boxmatch.data.classes import nearest_name
from boxmatch.data.headers import Progress, read_headers
from boxmatch.data.images import PIXEL_LIMIT
from boxmatch.data.problems import KEPT_PER_KIND, CheckPolicy, ProblemLog

# Text labels have six digits: on a picture of 10 000 px a box of one pixel comes back with up to 0.01 px
# more.
ROUNDING = 0.01
# VOC boxes are whole pixels, so a box of 1 x 1 px is what xmin = xmax and ymin = ymax become: a click, not
# an object.
ZERO_SIZE = 1 + ROUNDING
# Tools round coordinates: what leaves the picture by less than a pixel is clipped without a word.
OUTSIDE = 1 - ROUNDING
Pictures = Literal["header", "decode", "skip"]


def check_classes(annotations: Annotations, class_names: tuple[str, ...], log: ProblemLog) -> Annotations:
    """The boxes under the given class table; those of classes it does not have are noted and left out."""
    missing = [name not in class_names for name in annotations.class_names]
    unknown = np.array([*missing, False])[annotations.labels]
    note = _Notes(annotations, log)

    def message(row: int) -> str:
        name = annotations.class_names[annotations.labels[row]]
        near = nearest_name(name, class_names)
        advice = f"did you mean {near!r}?" if near else f"the classes are {list(class_names)[:20]}"
        return f"class {name!r} is not in the class list; {advice}"

    note.rows("unknown_class", unknown, message)
    return annotations.select_boxes(~unknown).with_classes(class_names)


def check_pictures(
    annotations: Annotations,
    log: ProblemLog,
    *,
    policy: CheckPolicy,
    pictures: Pictures = "header",
    sample: int | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    progress: Progress | None = None,
) -> Annotations:
    """The pictures that can be read, with the sizes that their files have.

    Boxes count in the upright picture, after the EXIF rotation. An annotation with the size of the picture
    as it is stored, turned by 90 degrees, is of kind `exif`; any other difference is of kind `picture_size`.

    Args:
        pictures: read the headers, decode all pixels too, or touch no file.
        sample: look at this many pictures only, evenly spread.
    """
    count = len(annotations)
    if pictures == "skip" or not count:
        return annotations
    chosen = (
        np.arange(count)
        if sample is None
        else np.unique(np.linspace(0, count - 1, min(sample, count)).astype(int))
    )
    headers = read_headers(
        len(chosen),
        lambda position: annotations.file(int(chosen[position])),
        pixel_limit=pixel_limit,
        decode=pictures == "decode",
        progress=progress,
    )
    keep = np.ones(count, dtype=bool)
    for position, (kind, message) in headers.problems.items():
        log.add(kind, annotations.name(int(chosen[position])), message)
        keep[chosen[position]] = False
    written = annotations.sizes[chosen]
    differs = ((written != headers.sizes) & (headers.sizes != UNKNOWN_SIZE) & (written != UNKNOWN_SIZE)).any(
        1
    )
    stored = headers.turned & (written == headers.sizes[:, ::-1]).all(1)
    for position in np.flatnonzero(differs).tolist():
        image = int(chosen[position])
        kind = "exif" if stored[position] else "picture_size"
        log.add(
            kind, annotations.name(image), _size_message(kind, written[position], headers.sizes[position])
        )
        keep[image] = policy.action(kind) == "keep"
    sizes = annotations.sizes.copy()
    sizes[chosen] = np.where(headers.sizes == UNKNOWN_SIZE, written, headers.sizes)
    checked = replace(annotations, sizes=sizes, shared=())
    return checked if keep.all() else checked.select_images(keep)


def _size_message(kind: str, written: np.ndarray, upright: np.ndarray) -> str:
    annotated, shown = (f"{width}x{height}" for width, height in (written.tolist(), upright.tolist()))
    if kind == "exif":
        return (
            f"the annotation says {annotated}, but the EXIF tag turns the picture to {shown}, so the boxes "
            f"seem drawn on the unturned picture; remove the tag, or annotate the picture as it is shown"
        )
    return f"the annotation says {annotated}, the file has {shown}; correct the annotation or the file"


def check_boxes(annotations: Annotations, log: ProblemLog, *, policy: CheckPolicy) -> Annotations:
    """Boxes that a detector may see: finite, with extent, inside their picture.

    A box is of zero size when it has 0 px in one direction or at most 1 px in both. Non-finite, inverted and
    zero-size boxes are left out; boxes outside are clipped, or left out by policy and when nothing remains.
    What leaves the picture by less than one pixel is rounding and is clipped silently.
    """
    note = _Notes(annotations, log)
    boxes = annotations.boxes
    finite = np.isfinite(boxes).all(1)
    note.rows("non_finite", ~finite, lambda row: "the box is not finite; correct the annotation")
    with np.errstate(invalid="ignore", over="ignore"):
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    inverted = finite & ((width < 0) | (height < 0))
    note.rows("inverted", inverted, lambda row: "the box ends before it begins; swap its corners")
    thin = np.minimum(width, height) <= 0
    zero = finite & ~inverted & (thin | (np.maximum(width, height) <= ZERO_SIZE))
    note.rows(
        "zero_size",
        zero,
        lambda row: f"the box has no extent ({width[row]:g} x {height[row]:g} px); redraw it",
    )
    clipped = clip_boxes(annotations)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = np.abs(boxes - clipped).max(1, initial=0) >= OUTSIDE
    outside = finite & ~inverted & ~zero & beyond
    remains = (clipped[:, 2:] > clipped[:, :2]).all(1)
    note.rows("outside", outside & remains, lambda row: f"the box leaves {note.picture(row)}; move it inside")
    note.rows(
        "outside",
        outside & ~remains,
        lambda row: f"the box lies beside {note.picture(row)}; remove it",
        "drop",
    )
    keep = finite & ~inverted & ~zero & remains
    if policy.outside == "drop":
        keep &= ~outside
    areas = annotations.areas
    if annotations.object_kind != "annotation":  # COCO files have areas of their own
        areas = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    return replace(annotations, boxes=clipped, areas=areas, shared=()).select_boxes(keep)


def clip_boxes(annotations: Annotations) -> Float32[np.ndarray, "N 4"]:
    """The boxes cut at the borders of their pictures; only at 0 where the size is unknown."""
    sizes = annotations.sizes.astype(np.float32)
    sizes[sizes < 0] = np.inf
    limit = np.repeat(sizes, np.diff(annotations.offsets), axis=0)
    clipped = np.empty_like(annotations.boxes)
    for side in range(4):
        np.clip(annotations.boxes[:, side], 0, limit[:, side % 2], out=clipped[:, side])
    return clipped


def check_duplicates(annotations: Annotations, log: ProblemLog, *, policy: CheckPolicy) -> Annotations:
    """Note boxes and ids that appear twice; such boxes are left out if the policy says drop."""
    later = duplicates(annotations)
    _Notes(annotations, log).rows(
        "duplicate_box", later, lambda row: "the same box appears twice; remove one"
    )
    if (
        annotations.object_kind == "annotation"
    ):  # ids are only written in COCO files; elsewhere they are positions
        first = np.unique(annotations.object_ids, return_index=True)[1]
        repeated = np.ones(len(annotations.object_ids), dtype=bool)
        repeated[first] = False
        message = "the annotation id appears twice; evaluation tools count such boxes wrongly"
        _Notes(annotations, log).rows("duplicate_object_id", repeated, lambda row: message)
    return annotations.select_boxes(~later) if policy.duplicate_box == "drop" else annotations


def duplicates(annotations: Annotations) -> Bool[np.ndarray, "N"]:
    """Boxes that equal an earlier one of the same class in the same picture."""
    key = _hash(annotations)
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    near = np.flatnonzero(sorted_key[1:] == sorted_key[:-1])  # few: only these are looked at in full
    before, after = order[near], order[near + 1]
    image = np.searchsorted(annotations.offsets, np.stack([before, after]), side="right")
    same = (image[0] == image[1]) & (annotations.labels[before] == annotations.labels[after])
    same &= (annotations.boxes[before] == annotations.boxes[after]).all(1)
    found = np.zeros(len(key), dtype=bool)
    found[after[same]] = True
    return found


def _hash(annotations: Annotations) -> Int64[np.ndarray, "N"]:
    """One number per box from picture, class and corners: sorting it is faster than sorting six columns."""
    corners = np.ascontiguousarray(annotations.boxes).view(np.int32)
    key = annotations.image_index().astype(np.int64)
    for column in (annotations.labels, *corners.T):
        key = key * np.int64(0x9E3779B97F4A7C1 | 1) + column  # any large odd number mixes; overflow wraps
        key ^= key >> np.int64(29)
    return key


class _Notes:
    """Writes rows of flat arrays into the log, with picture, object and box."""

    def __init__(self, annotations: Annotations, log: ProblemLog) -> None:
        self.annotations = annotations
        self.log = log

    def rows(
        self, kind: str, found: Bool[np.ndarray, "N"], message: Callable[[int], str], action: str = ""
    ) -> None:
        """Note each row of a mask; beyond what the log keeps only their number."""
        rows = np.flatnonzero(found)
        for row in rows[:KEPT_PER_KIND].tolist():
            self.log.add(
                kind,
                self.annotations.name(self.image(row)),
                message(row),
                object=f"{self.annotations.object_kind} {self.annotations.object_ids[row]}",
                box=self.annotations.boxes[row].tolist(),
                action=action,
            )
        self.log.count(kind, len(rows[KEPT_PER_KIND:]))

    def image(self, row: int) -> int:
        return int(np.searchsorted(self.annotations.offsets, row, side="right")) - 1

    def picture(self, row: int) -> str:
        width, height = self.annotations.sizes[self.image(row)].tolist()
        return "the picture" if width < 0 else f"its picture of {width}x{height}"
