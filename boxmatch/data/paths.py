"""File names that come from annotation files: none may leave the data root."""

import os
import posixpath
import re
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from boxmatch.errors import DataError

# Letters, digits and harmless signs, in parts that do not begin with a dot or blank.
USUAL = re.compile(r"[\w\-+,=()@][\w\-+,=()@ .]*(?:/[\w\-+,=()@][\w\-+,=()@ .]*)*")


def safe_name(root: Path, name: str, folder: str = "") -> str:
    """A file name from an annotation file as a name relative to `root`, with forward slashes.

    Args:
        root: the data root. It may itself be a symbolic link: whoever named it trusts it.
        name: as written in the file; relative to `folder`, or absolute below the root.
        folder: relative to `root`.

    Raises:
        DataError: the name is empty, holds NUL or control characters, names a drive, or leads out of the
            root, by `..`, as an absolute path or through a symbolic link.
    """
    plain = name.replace("\\", "/")
    folder = "" if folder == "." else folder
    relative = posixpath.join(folder, plain) if USUAL.fullmatch(plain) else _normal(root, name, plain, folder)
    parent, _, file = relative.rpartition("/")
    base = root if root.is_absolute() else Path.cwd() / root
    real_root = _real(base, "")
    target = f"{_real(base, parent)}/{file}"
    if os.path.islink(target):
        target = os.path.realpath(target)
    if not target.startswith(real_root + "/"):
        raise DataError(
            f"file name {name!r} leads out of the data root {root} through a symbolic link to {target}; "
            f"name the folder that holds the files as the data root"
        )
    return relative


def _normal(root: Path, name: str, plain: str, folder: str) -> str:
    """An unusual name, without `.` and `..`; what leads out of the root as it is written is refused here."""
    if not plain.strip() or any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xDC80 for letter in plain):
        raise DataError(f"file name {name!r} is empty or holds control characters or half of a character")
    if PureWindowsPath(plain).drive:
        raise DataError(f"file name {name!r} names a drive or network share; write it relative to {root}")
    if plain.startswith("/"):
        plain, folder = os.path.relpath(plain, os.path.abspath(root)), ""
    relative = posixpath.normpath(posixpath.join(folder, plain))
    if relative in (".", "..") or relative.startswith(("../", "/")):
        raise DataError(
            f"file name {name!r} leads out of the data root {root}; "
            f"move the file below it, or name a root that holds both"
        )
    return relative


@lru_cache(maxsize=4096)
def _real(root: Path, folder: str) -> str:
    """Folders repeat for each of their pictures: resolving them once keeps a name at a few µs."""
    return os.path.realpath(os.path.join(root, folder)).rstrip("/")
