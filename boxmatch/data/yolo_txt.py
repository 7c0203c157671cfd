"""Reader of YOLO text labels: a line per object, `class cx cy width height`, relative to the size."""

import posixpath
from pathlib import Path

from boxmatch.data.annotations import Annotations
from boxmatch.data.columns import Columns
from boxmatch.data.headers import Progress, read_headers
from boxmatch.data.images import PIXEL_LIMIT
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import read_text, read_yaml
from boxmatch.data.yolo_data_file import class_names, find_data_file, listed_pictures
from boxmatch.errors import DataError


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

    The label file of `.../images/a.jpg` is `.../labels/a.txt`, that of `.../JPEGImages/a.jpg` likewise;
    otherwise it lies at the picture's place below a folder `labels` in the root, or beside the picture. A
    picture without a label file has no objects.

    Args:
        root: the data root, which no file name may leave.
        split: key in the data file: "train", "val", "test".
        data_file: the yaml with `names`, `train`, `val`, relative to `root`; `data.yaml` in the root or in
            `yolo/` when None.
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
            f"{path}: the key 'download' is refused: no code is run and nothing fetched; remove the key"
        )
    names = class_names(content, path)
    pictures = listed_pictures(root, path, content, split, own_log)
    headers = read_headers(
        len(pictures), lambda position: root / pictures[position], pixel_limit=pixel_limit, progress=progress
    )
    columns = Columns()
    labels = _LabelFiles(root)
    for position, name in enumerate(pictures):
        if position in headers.problems:
            kind, message = headers.problems[position]
            own_log.add(kind, name, message)
        else:
            width, height = headers.sizes[position].tolist()
            _add_picture(columns, name, (width, height), len(names), labels, own_log)
    if log is None:
        own_log.refuse()
    return columns.build(root, names, class_ids=range(len(names)), object_kind="line")


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


def _add_picture(
    columns: Columns, name: str, size: tuple[int, int], classes: int, labels: _LabelFiles, log: ProblemLog
) -> None:
    file = labels.find(name)
    try:
        path = labels.root / safe_name(labels.root, file)
        text = read_text(path) if path.exists() else None
    except DataError as error:
        log.add("broken_file", file, str(error))
        return
    if text is None:
        log.add("missing_labels", name, f"no label file {file}; the picture counts as one without objects")
    columns.add_picture(name, *size)
    for number, line in enumerate((text or "").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            label, box = _parse_line(line, size)
        except ValueError:
            message = f"expected five numbers 'class cx cy width height', got {line!r:.80}"
            log.add("broken_object", file, message, object=f"line {number}")
            continue
        if 0 <= label < classes:
            columns.add_box(box, label, number)
        else:
            message = f"class id {label} is out of range; the classes are 0 to {classes - 1}"
            log.add("class_id", file, message, object=f"line {number}")


def _parse_line(line: str, size: tuple[int, int]) -> tuple[int, tuple[float, float, float, float]]:
    """Class number and box in pixels; the ends are those of the box, no pixel is added.

    Raises:
        ValueError: not five numbers, or the first is not whole.
    """
    columns = line.split()
    cx, cy, width, height = (float(text) for text in columns[1:])
    return int(columns[0]), (
        (cx - width / 2) * size[0],
        (cy - height / 2) * size[1],
        (cx + width / 2) * size[0],
        (cy + height / 2) * size[1],
    )
