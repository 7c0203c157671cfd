"""The data file (yaml) of a YOLO data set: class names, and which pictures belong to a split."""

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boxmatch.data.classes import class_name
from boxmatch.data.images import SUFFIXES
from boxmatch.data.paths import safe_name
from boxmatch.data.problems import ProblemLog
from boxmatch.data.text_files import read_text, read_yaml
from boxmatch.errors import DataError


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
        DataError: none, a number missing, a name that is no text, twice the same, or a count `nc` that
            disagrees.
    """
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(
                f"{path}: expected 0 to {len(names) - 1} as keys of 'names', got {list(names)[:20]}"
            )
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: expected a list or mapping of class names in 'names', got {names!r:.80}")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise DataError(f"{path}: expected text as class name, got {name!r:.80}; put it in quotes")
    try:
        texts = tuple(class_name(str(name)) for name in names)
    except DataError as error:
        raise DataError(f"{path}: {error} in 'names'") from None
    if len(set(texts)) < len(texts):
        twice = sorted({name for name in texts if texts.count(name) > 1})
        raise DataError(f"{path}: the classes {twice} appear twice in 'names'")
    if "nc" in content and content["nc"] != len(texts):
        raise DataError(f"{path}: 'nc' is {content['nc']!r}, but 'names' has {len(texts)} names")
    return texts


def listed_pictures(
    root: Path, path: Path, content: dict[Any, Any], split: str, log: ProblemLog
) -> list[str]:
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
    """A list file or folder that the data file names, below its `path`, its own folder, or the root."""
    if base is not None and not isinstance(base, str):
        raise DataError(f"{path}: expected a folder in 'path', got {base!r:.80}")
    own = path.parent.resolve()
    real_root = root.resolve()
    tried = []
    for start in dict.fromkeys((own / (base or "."), own, root / (base or "."), root)):
        # Exported sets write ../train/images in a data.yaml that lies beside train/.
        for text in dict.fromkeys((entry, entry.removeprefix("../"))):
            place = Path(posixpath.normpath(start / text.replace("\\", "/")))
            if place.exists() and place.resolve().is_relative_to(real_root):
                return real_root / place.resolve().relative_to(real_root)
            tried.append(str(place))
    raise DataError(
        f"{path}: {entry!r} is no list file or folder below {root}; tried {list(dict.fromkeys(tried))}"
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
