"""Annotations of a whole data set as a few flat arrays: I images, N boxes.

A Python object per box costs about 500 bytes and a copy in each worker process, because reference counts are
written to. Flat arrays cost 45 bytes per box, are shared by all workers, and make every check one array
operation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from boxmatch.errors import DataError

UNKNOWN_SIZE = -1


@dataclass(frozen=True, eq=False)
class Annotations:
    """Pictures and boxes of one split. An image without boxes owns no row; `offsets` says which rows an
    image owns.

    Args:
        root: folder that the file names are relative to.
        sizes: width and height of each picture in pixels as the annotation says, -1 where it does not.
        image_ids: id of each picture in its annotation file (COCO), or its position.
        names: file names, relative to `root` with forward slashes, UTF-8, one after the other.
        name_offsets: where each name begins and ends in `names`.
        offsets: the boxes of image i are the rows `offsets[i]` to `offsets[i + 1]`.
        boxes: xyxy in pixels, from 0, with exclusive ends: a box of one pixel is (x, y, x + 1, y + 1).
        labels: index into `class_names`.
        ignore: regions (crowd, difficult) that are neither object nor background.
        areas: area in square pixels by which the size of an object is judged: COCO's own, otherwise that of
            the box.
        object_ids: COCO annotation id, number of the object in an XML file, or line number; from 1.
        class_names: names in the order of the labels.
        class_ids: category id of each class in its source, needed to write COCO results.
        object_kind: what `object_ids` counts: "object", "annotation" or "line".
        shared: the torch tensors whose memory the arrays use, after `share`.
    """

    root: Path
    sizes: Int32[np.ndarray, "I 2"]
    image_ids: Int64[np.ndarray, "I"]
    names: UInt8[np.ndarray, "_"]
    name_offsets: Int64[np.ndarray, "I+1"]
    offsets: Int64[np.ndarray, "I+1"]
    boxes: Float32[np.ndarray, "N 4"]
    labels: Int32[np.ndarray, "N"]
    ignore: Bool[np.ndarray, "N"]
    areas: Float32[np.ndarray, "N"]
    object_ids: Int64[np.ndarray, "N"]
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    object_kind: str = "object"
    shared: tuple[Any, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Shared arrays travel as tensors: a worker process then receives a handle and not a copy."""
        arrays = self.shared or tuple(getattr(self, name) for name in ARRAYS)
        return _rebuild, (self.root, arrays, self.class_names, self.class_ids, self.object_kind)

    def name(self, image: int) -> str:
        """File name of a picture, relative to the root."""
        start, end = self.name_offsets[image], self.name_offsets[image + 1]
        return self.names[start:end].tobytes().decode("utf-8", "surrogateescape")

    def file(self, image: int) -> Path:
        """File of a picture."""
        return self.root / self.name(image)

    def rows(self, image: int) -> slice:
        """The rows of `boxes`, `labels`, ... that a picture owns."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def image_index(self) -> Int64[np.ndarray, "N"]:
        """The picture that owns each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def class_counts(self) -> Int64[np.ndarray, "C"]:
        """Boxes of each class, ignore regions left out."""
        valid = (self.labels >= 0) & ~self.ignore
        return np.bincount(self.labels[valid], minlength=len(self.class_names)).astype(np.int64)

    def select_images(self, index: np.ndarray | Sequence[int]) -> "Annotations":
        """The pictures of an index (any order, repeats allowed) or of a bool mask, with their boxes."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        rows, offsets = _gather(self.offsets, index)
        letters, name_offsets = _gather(self.name_offsets, index)
        per_box = {name: getattr(self, name)[rows] for name in PER_BOX}
        return replace(
            self,
            sizes=self.sizes[index],
            image_ids=self.image_ids[index],
            names=self.names[letters],
            name_offsets=name_offsets,
            offsets=offsets,
            shared=(),
            **per_box,
        )

    def select_boxes(self, keep: Bool[np.ndarray, "N"]) -> "Annotations":
        """The boxes where `keep` holds; every picture stays."""
        if keep.all():
            return self
        kept = np.concatenate([[0], np.cumsum(keep)])
        per_box = {name: getattr(self, name)[keep] for name in PER_BOX}
        return replace(self, offsets=kept[self.offsets].astype(np.int64), shared=(), **per_box)

    def with_classes(self, class_names: Sequence[str]) -> "Annotations":
        """The same boxes under another class table; names are the key.

        Raises:
            DataError: a class that has boxes is missing from `class_names`.
        """
        position = {name: number for number, name in enumerate(class_names)}
        table = np.array([position.get(name, -1) for name in self.class_names] or [-1], dtype=np.int32)
        labels = table[self.labels]
        if (labels < 0).any():
            lost = sorted({self.class_names[label] for label in np.unique(self.labels[labels < 0])})
            raise DataError(
                f"the boxes of {self.root} have the classes {lost}, not in the class list {list(class_names)}"
            )
        ids = dict(zip(self.class_names, self.class_ids, strict=True))
        unused = max(ids.values(), default=0) + 1
        new_ids = []
        for name in class_names:
            new_ids.append(ids.get(name, unused))
            unused += name not in ids
        return replace(
            self, labels=labels, class_names=tuple(class_names), class_ids=tuple(new_ids), shared=()
        )

    def share(self) -> "Annotations":
        """The same arrays in shared memory: worker processes, forked or spawned, read them without a copy."""
        import torch  # here, because reading and checking need no torch: it takes 4 s and 500 MB to import

        tensors = tuple(torch.from_numpy(np.array(getattr(self, name))).share_memory_() for name in ARRAYS)
        return replace(self, shared=tensors, **{n: t.numpy() for n, t in zip(ARRAYS, tensors, strict=True)})


PER_BOX = ("boxes", "labels", "ignore", "areas", "object_ids")
ARRAYS = ("sizes", "image_ids", "names", "name_offsets", "offsets", *PER_BOX)


def _rebuild(
    root: Path,
    arrays: tuple[Any, ...],
    class_names: tuple[str, ...],
    class_ids: tuple[int, ...],
    object_kind: str,
) -> Annotations:
    shared = tuple(a for a in arrays if not isinstance(a, np.ndarray))
    plain = {n: a if isinstance(a, np.ndarray) else a.numpy() for n, a in zip(ARRAYS, arrays, strict=True)}
    return Annotations(
        root=root,
        class_names=class_names,
        class_ids=class_ids,
        object_kind=object_kind,
        shared=shared,
        **plain,
    )


def _gather(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the segments `index` one after the other, and the new offsets."""
    lengths = np.diff(offsets)[index]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(new[-1]) + np.repeat(offsets[index] - new[:-1], lengths)
    return rows, new


def pack_names(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """File names as one blob of bytes and the offsets into it."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded], dtype=np.int64)]).astype(np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def concatenate(parts: Sequence[Annotations]) -> Annotations:
    """Several sets as one, as VOC2007 + VOC2012: classes are joined by name, image ids become positions when
    they clash.

    Raises:
        ValueError: no parts.
        DataError: the parts have different roots.
    """
    if not parts:
        raise ValueError("expected one set of annotations or more, got none")
    if len(parts) == 1:
        return parts[0]
    roots = {part.root for part in parts}
    if len(roots) > 1:
        raise DataError(f"expected sets below one root, got {sorted(map(str, roots))}")
    class_names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
    parts = [part.with_classes(class_names) for part in parts]
    image_ids = np.concatenate([part.image_ids for part in parts])
    if len(np.unique(image_ids)) < len(image_ids):
        image_ids = np.arange(len(image_ids))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in (*PER_BOX, "sizes", "names")
    }
    return replace(
        parts[0],
        image_ids=image_ids,
        name_offsets=_join_offsets([part.name_offsets for part in parts]),
        offsets=_join_offsets([part.offsets for part in parts]),
        shared=(),
        **joined,
    )


def _join_offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def from_columns(
    root: Path,
    *,
    names: Sequence[str],
    sizes: np.ndarray,
    image_of_box: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray,
    object_ids: np.ndarray,
    class_names: Sequence[str],
    image_ids: np.ndarray | None = None,
    areas: np.ndarray | None = None,
    class_ids: Sequence[int] | None = None,
    object_kind: str = "object",
) -> Annotations:
    """Build from one column per property, the boxes in any order; a stable sort groups them by image.

    Args:
        image_of_box: position in `names` of the picture of each box.
        areas: width x height of the boxes when None.
        class_ids: 1, 2, ... when None.
    """
    order = np.argsort(image_of_box, kind="stable")
    counts = np.bincount(image_of_box, minlength=len(names))
    blob, name_offsets = pack_names(names)
    boxes = boxes.astype(np.float32, copy=False).reshape(-1, 4)[order]
    if areas is None:
        with np.errstate(over="ignore", invalid="ignore"):
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    else:
        areas = areas[order]
    return Annotations(
        root=root,
        sizes=np.asarray(sizes, dtype=np.int32).reshape(-1, 2),
        image_ids=np.arange(len(names)) if image_ids is None else np.asarray(image_ids, dtype=np.int64),
        names=blob,
        name_offsets=name_offsets,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=np.asarray(labels, dtype=np.int32)[order],
        ignore=np.asarray(ignore, dtype=bool)[order],
        areas=areas.astype(np.float32, copy=False),
        object_ids=np.asarray(object_ids, dtype=np.int64)[order],
        class_names=tuple(class_names),
        class_ids=tuple(range(1, len(class_names) + 1)) if class_ids is None else tuple(class_ids),
        object_kind=object_kind,
    )
