"""Reader of YOLO text labels: one line per object, `class cx cy width height`, relative to the picture's size."""

import posixpath
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxmatch.data.annotations import Annotations, from_columns
from boxmatch.data.images import PIXEL_LIMIT, SUFFIXES, TooLargeError, read_size
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import read_text, read_yaml
from boxmatch.errors import DataError

THREADS = 8  # header reads wait for the disk, not for the processor
Progress = Callable[[int, int], None]


def read_yolo(
    root: str | Path,
    split: str = "train",
    *,
    data_file: str | Path | None = None,
    pixel_limit: int = PIXEL_LIMIT,
    progress: Progress | None = None,
    log: ProblemLog | None = None,
) -> Annotations:
    """Read one split of a YOLO data set.

    The label file of `.../images/a.jpg` is `.../labels/a.txt`, that of `.../JPEGImages/a.jpg` likewise; otherwise it lies at the
    picture's place below a folder `labels` in the root, or beside the picture. A picture without a label file has no objects.

    Args:
        root: the data root, which no file name may leave.
        split: key in the data file: "train", "val", "test".
        data_file: the yaml with `names`, `train`, `val`, relative to `root`; `data.yaml` in the root or in `yolo/` when None.
        pixel_limit: pictures with more pixels are a problem.
        progress: called with (pictures done, pictures in all).
        log: takes the problems, which are left out of the result. Without it they are raised.

    Raises:
        DataError: no data file, no such split; without `log`, anything wrong in the files.
    """
    root = Path(root)
    own_log = ProblemLog() if log is None else log
    path = find_data_file(root) if data_file is None else root / data_file
    content = read_yaml(path)
    if "download" in content:
        raise DataError(
            f"{path}: the key 'download' is refused: boxmatch runs no code and fetches nothing; remove the key"
        )
    names = class_names(content, path)
    pictures = _pictures(root, path, content, split, own_log)
    sizes = picture_sizes(root, pictures, pixel_limit, progress)
    columns = _Columns(len(names))
    labels = _LabelFiles(root)
    for name, size in zip(pictures, sizes, strict=True):
        if isinstance(size, SizeError):
            own_log.add(size.kind, name, str(size))
        else:
            columns.add_picture(name, size, labels, own_log)
    if log is None:
        own_log.refuse()
    return columns.build(root, names)


def find_data_file(root: Path) -> Path:
    """`data.yaml` in the root or in `yolo/`, otherwise the only yaml file with `names` in the root.

    Raises:
        DataError: none, or several.
    """
    for usual in ("data.yaml", "data.yml", "yolo/data.yaml", "yolo/data.yml"):
        if (root / usual).is_file():
            return root / usual
    found = [file for file in sorted(root.glob("*.y*ml")) if "names" in _keys(file)]
    if len(found) != 1:
        raise DataError(
            f"{root}: expected one data.yaml with 'names', 'train' and 'val', got {[f.name for f in found]}"
        )
    return found[0]


def _keys(file: Path) -> Iterable[Any]:
    try:
        return read_yaml(file).keys()
    except DataError:
        return ()


def class_names(content: dict[Any, Any], path: Path) -> tuple[str, ...]:
    """The class names of a data file, from a list or from a mapping 0, 1, 2, ... to names.

    Raises:
        DataError: none, a number missing, a name that is no text, twice the same, or a count `nc` that disagrees.
    """
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(
                f"{path}: expected the numbers 0 to {len(names) - 1} as keys of 'names', got {list(names)[:20]}"
            )
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: expected a list or mapping of class names in 'names', got {names!r:.80}")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise DataError(f"{path}: expected text as class name, got {name!r:.80}; put it in quotes")
    texts = tuple(str(name).strip() for name in names)
    if len(set(texts)) < len(texts):
        twice = sorted({name for name in texts if texts.count(name) > 1})
        raise DataError(f"{path}: the classes {twice} appear twice in 'names'")
    if "nc" in content and content["nc"] != len(texts):
        raise DataError(f"{path}: 'nc' is {content['nc']!r}, but 'names' has {len(texts)} names")
    return texts


def _pictures(root: Path, path: Path, content: dict[Any, Any], split: str, log: ProblemLog) -> list[str]:
    """Names of the pictures of a split, relative to the root, each once, in the order of the lists."""
    entries = content.get(split)
    if not entries:
        keys = [key for key in ("train", "val", "test") if content.get(key)]
        raise DataError(f"{path}: no entry {split!r}; there are {keys}")
    names: dict[str, None] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, str):
            raise DataError(f"{path}: expected a file or folder in {split!r}, got {entry!r:.80}")
        place = _find_entry(root, path, content.get("path"), entry)
        found = _listed(root, place, log) if place.is_file() else _folder(root, place)
        for name in found:
            if name in names:
                log.add("duplicate_id", name, f"the picture is listed twice in {split!r}")
            names[name] = None
    return list(names)


def _find_entry(root: Path, path: Path, base: Any, entry: str) -> Path:
    """A list file or folder that the data file names: relative to its `path`, to its own folder, or to the root."""
    own = path.parent.resolve()
    real_root = root.resolve()
    tried = []
    for start in dict.fromkeys((own / str(base or "."), own, root / str(base or "."), root)):
        # Exported sets write ../train/images in a data.yaml that lies beside train/.
        for text in dict.fromkeys((entry, entry.removeprefix("../"))):
            place = Path(posixpath.normpath(start / text.replace("\\", "/")))
            if place.exists() and place.resolve().is_relative_to(real_root):
                return real_root / place.resolve().relative_to(real_root)
            tried.append(str(place))
    raise DataError(
        f"{path}: {entry!r} is neither a list file nor a folder below {root}; tried {list(dict.fromkeys(tried))}"
    )


def _listed(root: Path, file: Path, log: ProblemLog) -> Iterable[str]:
    real_root = root.resolve()
    folder = file.parent.relative_to(real_root).as_posix()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        written = line.strip()
        if not written:
            continue
        try:
            name = safe_name(root, written, folder)
            if not (root / name).exists() and not written.startswith(
                "/"
            ):  # darknet lists count from the root
                from_root = _safe_or_none(root, written)
                name = from_root if from_root and (root / from_root).exists() else name
            yield name
        except DataError as error:
            log.add(
                "unsafe_path", file.relative_to(real_root).as_posix(), str(error), object=f"line {number}"
            )


def _safe_or_none(root: Path, written: str) -> str | None:
    try:
        return safe_name(root, written)
    except DataError:
        return None


def _folder(root: Path, folder: Path) -> Iterable[str]:
    base = folder.relative_to(root.resolve())
    found = (base / f.relative_to(folder) for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    return [safe_name(root, name.as_posix()) for name in sorted(found)]


class SizeError(DataError):
    """The header of a picture gives no size; `kind` is the kind of problem."""

    def __init__(self, message: str, kind: str = "unreadable_picture") -> None:
        super().__init__(message)
        self.kind = kind


def picture_sizes(
    root: Path, names: Sequence[str], pixel_limit: int = PIXEL_LIMIT, progress: Progress | None = None
) -> list[tuple[int, int] | SizeError]:
    """Upright width and height of each picture, or what is wrong with it; headers only, by several threads."""

    def size(name: str) -> tuple[int, int] | SizeError:
        try:
            return read_size(root / name, pixel_limit)[:2]
        except TooLargeError as error:
            return SizeError(str(error), "large_picture")
        except DataError as error:
            return SizeError(
                str(error), "unreadable_picture" if (root / name).exists() else "missing_picture"
            )

    sizes = []
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(size, names):
            sizes.append(found)
            if progress is not None:
                progress(len(sizes), len(names))
    return sizes


class _LabelFiles:
    """Finds the label file of a picture; each folder is looked up once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, str] = {}

    def find(self, picture: str) -> str:
        """Name of the label file, which need not exist."""
        folder, _, file = picture.rpartition("/")
        if folder not in self.folders:
            self.folders[folder] = self._folder(folder)
        return posixpath.join(self.folders[folder], file.rpartition(".")[0] + ".txt")

    def _folder(self, folder: str) -> str:
        parts = folder.split("/")
        for name in ("images", "JPEGImages"):
            if name in parts:
                last = len(parts) - 1 - parts[::-1].index(name)
                return "/".join((*parts[:last], "labels", *parts[last + 1 :]))
        beside_images = posixpath.join("labels", folder)
        return beside_images if (self.root / beside_images).is_dir() else folder


@dataclass
class _Columns:
    classes: int
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add_picture(self, name: str, size: tuple[int, int], labels: _LabelFiles, log: ProblemLog) -> None:
        file = labels.find(name)
        try:
            text = read_text(labels.root / safe_name(labels.root, file))
        except DataError as error:
            if (labels.root / file).exists():
                log.add("broken_file", file, str(error))
                return
            log.add(
                "missing_labels", name, f"no label file {file}; the picture counts as one without objects"
            )
            text = ""
        self.names.append(name)
        self.sizes.append(size)
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                self.add_line(line, number, file, size, log)

    def add_line(self, line: str, number: int, file: str, size: tuple[int, int], log: ProblemLog) -> None:
        columns = line.split()
        try:
            label = int(columns[0])
            cx, cy, width, height = (float(text) for text in columns[1:])
        except ValueError:
            message = f"expected five numbers 'class cx cy width height', got {line!r:.80}"
            log.add("broken_object", file, message, object=f"line {number}")
            return
        if not 0 <= label < self.classes:
            message = f"class id {label} is out of range; the classes are 0 to {self.classes - 1}"
            log.add("class_id", file, message, object=f"line {number}")
            return
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        self.image.append(len(self.names) - 1)
        self.boxes.append((box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]))
        self.labels.append(label)
        self.lines.append(number)

    def build(self, root: Path, names: tuple[str, ...]) -> Annotations:
        return from_columns(
            root,
            names=self.names,
            sizes=np.array(self.sizes, dtype=np.int32),
            image_of_box=np.array(self.image, dtype=np.int64),
            boxes=np.array(self.boxes, dtype=np.float32),
            labels=np.array(self.labels, dtype=np.int32),
            ignore=np.zeros(len(self.labels), dtype=bool),
            object_ids=np.array(self.lines, dtype=np.int64),
            class_names=names,
            class_ids=range(len(names)),
            object_kind="line",
        )
