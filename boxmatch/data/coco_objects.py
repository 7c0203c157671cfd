"""The list `annotations` of a COCO file as columns of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from boxmatch.data.problems import ProblemLog
from boxmatch.errors import DataError

IDS = itemgetter("id", "image_id", "category_id")


@dataclass(frozen=True)
class Objects:
    """N annotations; boxes are xyxy in pixels, areas those of the file or width x height."""

    ids: Int64[np.ndarray, "N"]
    image_ids: Int64[np.ndarray, "N"]
    category_ids: Int64[np.ndarray, "N"]
    boxes: Float32[np.ndarray, "N 4"]
    areas: Float32[np.ndarray, "N"]
    crowd: Bool[np.ndarray, "N"]

    @classmethod
    def concatenate(cls, parts: "Sequence[Objects]") -> "Objects":
        """One after the other; none at all gives columns of length 0."""
        parts = parts or [_columns([])]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def select(self, keep: Bool[np.ndarray, "N"]) -> "Objects":
        """The rows of a mask."""
        return Objects(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    def place(self, row: int) -> str:
        """How a report names a row."""
        return f"annotation {self.ids[row]}"


def read_objects(batch: list[Any], first: int, file: str, log: ProblemLog) -> Objects:
    """Annotations as columns; entries that are not as COCO describes them go to the log.

    Args:
        first: position of the batch in its list.
    """
    try:
        return _columns(batch)
    except (KeyError, TypeError, ValueError, OverflowError):  # a bad entry somewhere: find it, one by one
        good = []
        for number, entry in enumerate(batch, start=first):
            try:
                good.append(_checked(entry, number))
            except DataError as error:
                log.add("broken_object", file, str(error), object=f"annotations[{number}]")
        return _columns(good)


def look_up(
    values: Int64[np.ndarray, "N"], keys: Int64[np.ndarray, "K"]
) -> tuple[Int64[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """Position of each value in `keys`, and whether it is there."""
    if not len(keys):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    order = np.argsort(keys, kind="stable")
    position = order[np.searchsorted(keys, values, sorter=order).clip(max=len(keys) - 1)]
    return position, keys[position] == values


def whole(entry: Any, key: str, default: int | None = None) -> int:
    """A whole number of 64 bits in an entry; 3.0 counts as one.

    Raises:
        DataError: it is missing and there is no default, or it is something else.
    """
    value = entry.get(key, default) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or abs(value) >= 2**63:
        raise DataError(f"expected a whole number in {key!r}, got {value!r:.80}")
    return value


def text(entry: Any, key: str) -> str:
    """A text in an entry.

    Raises:
        DataError: it is missing, blank, something else, or holds half of a character.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if (
        not isinstance(value, str)
        or not value.strip()
        or any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    ):
        raise DataError(f"expected a text in {key!r}, got {value!r:.80}")
    return value


def _columns(batch: list[Any]) -> Objects:
    """Annotations as columns, all at once.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: some entry is not as COCO describes it.
    """
    ids = np.array(list(map(IDS, batch)), dtype=None if batch else np.int64).reshape(-1, 3)
    boxes = np.array([entry["bbox"] for entry in batch], dtype=None if batch else np.float64)
    areas = np.array([entry.get("area", np.nan) for entry in batch], dtype=None if batch else np.float64)
    crowd = np.array([entry.get("iscrowd", 0) for entry in batch], dtype=None if batch else np.int64)
    kinds = ids.dtype.kind + boxes.dtype.kind + areas.dtype.kind + crowd.dtype.kind
    if kinds[0] != "i" or not set(kinds[1:3]) <= set("if") or kinds[3] not in "ib":
        raise TypeError("not numbers")
    if batch and boxes.shape != (len(batch), 4):
        raise ValueError("not four numbers")
    boxes = boxes.reshape(-1, 4).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 becomes infinite, which the check reports
        areas = np.where(np.isfinite(areas), areas, boxes[:, 2] * boxes[:, 3]).astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return Objects(
            ids[:, 0].copy(),
            ids[:, 1].copy(),
            ids[:, 2].copy(),
            boxes.astype(np.float32),
            areas,
            crowd.astype(bool),
        )


def _checked(entry: Any, number: int) -> dict[str, Any]:
    """An annotation with the fields that are read; an id that is missing becomes its position.

    Raises:
        DataError: another one is missing or of the wrong type.
    """
    box = entry.get("bbox") if isinstance(entry, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"expected four numbers in 'bbox', got {box!r:.80}")
    area = entry.get("area")
    return {
        "id": whole(entry, "id", number),
        "image_id": whole(entry, "image_id"),
        "category_id": whole(entry, "category_id"),
        "bbox": [float(value) for value in box],
        "area": float(area) if _is_number(area) else float("nan"),
        "iscrowd": bool(entry.get("iscrowd")),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
