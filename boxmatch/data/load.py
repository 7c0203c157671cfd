"""From a folder to checked annotations: all splits, one class table, everything checked, one report."""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from boxmatch.data.annotations import Annotations
from boxmatch.data.checks import Pictures, check_boxes, check_classes, check_duplicates, check_pictures
from boxmatch.data.classes import class_list, similar_names, voc_classes
from boxmatch.data.problems import CheckPolicy, ProblemLog
from boxmatch.data.read import Format, ReadOptions, detect_format, find_entry, read_split
from boxmatch.data.report import CheckReport
from boxmatch.errors import DataError

USUAL_SPLITS: Mapping[str, str | Sequence[str] | None] = {"train": None, "val": None}


def load_splits(
    root: str | Path,
    splits: Mapping[str, str | Sequence[str] | None] = USUAL_SPLITS,
    *,
    layout: Format | Literal["auto"] = "auto",
    class_names: Sequence[str] | None = None,
    options: ReadOptions | None = None,
    policy: CheckPolicy | None = None,
    pictures: Pictures = "header",
    sample: int | None = None,
    hold_out: float = 0.1,
) -> tuple[dict[str, Annotations], CheckReport]:
    """Read and check the splits of a data set.

    The report says what was found; its `refuse()` raises if that forbids training.

    Args:
        root: the data root; no file name may leave it.
        splits: entries of each split as `read_split` takes them; None looks for the usual ones. The first
            split is the one that is trained on.
        layout: "voc", "coco", "yolo", or found out.
        class_names: the class table; found in the data when None. COCO: categories by id. YOLO: order of the
            data file. VOC: exactly those of `classes.txt` in the root; without it alphabetical (see
            `voc_classes`).
        options: what the readers are told.
        policy: what to do about each kind of problem.
        pictures: read the header of each picture, decode all pixels, or touch no picture.
        sample: look at this many pictures per split only.
        hold_out: share of the training pictures that becomes "val" when that split is asked for with None
            and there is none.

    Raises:
        DataError: no such folder, layout or split; nothing to check.
    """
    root = Path(root)
    options = options or ReadOptions()
    policy = policy or CheckPolicy()
    layout = detect_format(root) if layout == "auto" else layout
    log = ProblemLog()
    notes: list[str] = []
    found = _entries(root, layout, splits)
    read = _read(root, found, layout, options, log)
    if "val" in splits and "val" not in found and "train" in read and hold_out > 0:
        read["train"], read["val"] = split_off(read["train"], hold_out)
        notes.append(
            f"no split 'val': {len(read['val']):,} pictures of 'train' were held out, chosen by file name"
        )
    table = _class_table(root, layout, read, class_names)
    if layout == "yolo" and pictures == "header":
        pictures = "skip"  # the reader has looked at all headers: they hold the sizes
    look = partial(
        check_pictures,
        log=log,
        policy=policy,
        pictures=pictures,
        sample=sample,
        pixel_limit=options.pixel_limit,
        progress=options.progress,
    )
    checked: dict[str, Annotations] = {}
    for name, annotations in read.items():
        log.split = name
        known = check_boxes(look(check_classes(annotations, table, log)), log, policy=policy)
        checked[name] = check_duplicates(known, log, policy=policy)
    _compare_splits(checked, log)
    if layout == "voc" and class_names is None and class_list(root) is None:
        _compare_classes(table, log)
    return checked, CheckReport.of(
        layout, checked, log, policy, root=str(root), class_names=table, notes=tuple(notes)
    )


def _entries(
    root: Path, layout: Format, splits: Mapping[str, str | Sequence[str] | None]
) -> dict[str, str | Sequence[str]]:
    """What to read for each split; a split that nobody named and that does not exist is left out."""
    found = {}
    for name, named in splits.items():
        entries = find_entry(root, layout, name) if named is None else named
        if entries is None and name == "train":
            raise DataError(f"{root}: no split 'train' in {layout} layout; name the entries of the split")
        if entries is not None:
            found[name] = entries
    return found


def _read(
    root: Path,
    splits: Mapping[str, str | Sequence[str]],
    layout: Format,
    options: ReadOptions,
    log: ProblemLog,
) -> dict[str, Annotations]:
    """All splits that can be read; one that cannot is an error in the log and does not stop the others."""
    read: dict[str, Annotations] = {}
    for name, entries in splits.items():
        log.split = name
        try:
            read[name] = read_split(root, entries, layout=layout, options=options, log=log)
        except DataError as error:
            log.add("broken_file", "", str(error), action="error")
    if not read:
        raise DataError([str(problem) for problem in log.problems] or f"{root}: no splits to read")
    return read


def split_off(annotations: Annotations, share: float) -> tuple[Annotations, Annotations]:
    """The pictures that stay, and a share of them that is split off.

    A checksum of the file name decides, so that none changes sides when pictures are added.
    """
    checksum = np.array(
        [zlib.crc32(annotations.name(i).encode("utf-8", "surrogateescape")) for i in range(len(annotations))]
    )
    chosen = checksum < share * 2**32
    return annotations.select_images(~chosen), annotations.select_images(chosen)


def _class_table(
    root: Path, layout: Format, read: Mapping[str, Annotations], class_names: Sequence[str] | None
) -> tuple[str, ...]:
    if class_names is not None:
        if len(set(class_names)) < len(class_names) or not class_names:
            raise DataError(f"expected class names, each once, got {list(class_names)}")
        return tuple(class_names)
    listed = class_list(root) if layout == "voc" else None
    if listed:
        return listed
    found = dict.fromkeys(name for annotations in read.values() for name in annotations.class_names)
    return voc_classes(root, found) if layout == "voc" else tuple(found)


def _compare_classes(class_names: tuple[str, ...], log: ProblemLog) -> None:
    """Note names that may be one class: they were typed by hand, object by object."""
    log.split = ""
    for other, name in similar_names(class_names):
        message = f"the classes {other!r} and {name!r} differ by a letter; is one of them misspelt?"
        log.add("similar_class", "", message)


def _compare_splits(splits: Mapping[str, Annotations], log: ProblemLog) -> None:
    """Note classes that are never trained, and pictures that are in two splits."""
    names = list(splits)
    trained = splits[names[0]].class_counts() > 0
    for name in names[1:]:
        log.split = name
        counts = splits[name].class_counts()
        for label in np.flatnonzero((counts > 0) & ~trained):
            class_name = splits[name].class_names[label]
            message = f"class {class_name!r} has objects here ({counts[label]}) and none in {names[0]!r}"
            log.add("untrained_class", "", f"{message}: it cannot be learned")
    hashes = {
        name: np.array([hash(part.name(i)) for i in range(len(part))], dtype=np.int64)
        for name, part in splits.items()
    }
    for position, name in enumerate(names):
        log.split = name
        for other in names[:position]:
            for image in np.flatnonzero(np.isin(hashes[name], hashes[other])).tolist():
                message = f"the picture is also in {other!r}: figures on it say nothing about new pictures"
                log.add("shared_picture", splits[name].name(image), message)
