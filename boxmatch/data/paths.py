"""File names that come from annotation files: none may leave the data root."""

import os
import posixpath
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from boxmatch.errors import DataError


def safe_name(root: Path, name: str, folder: str = "") -> str:
    """A file name from an annotation file as a name relative to `root`, with forward slashes.

    Args:
        root: the data root. It may itself be a symbolic link: whoever named it trusts it.
        name: as written in the file; relative to `folder`, or absolute below the root.
        folder: relative to `root`.

    Raises:
        DataError: the name is empty, holds NUL or control characters, names a drive, or leads out of the root, by `..`,
            as an absolute path or through a symbolic link.
    """
    plain = name.replace("\\", "/")
    if not plain or any(ord(letter) < 32 for letter in plain):
        raise DataError(f"file name {name!r} is empty or holds control characters")
    if PureWindowsPath(plain).drive:
        raise DataError(f"file name {name!r} names a drive or network share; write it relative to {root}")
    if plain.startswith("/"):
        plain = os.path.relpath(plain, _absolute(root))
        folder = ""
    relative = posixpath.normpath(posixpath.join(folder, plain))
    if relative == ".." or relative.startswith(("../", "/")) or relative == ".":
        raise DataError(
            f"file name {name!r} leads out of the data root {root}; move the file below it or name a root that holds both"
        )
    real_root = _real(_absolute(root))
    parent = _real(posixpath.join(_absolute(root), posixpath.dirname(relative)))
    target = posixpath.join(parent, posixpath.basename(relative))
    if os.path.islink(target):
        target = os.path.realpath(target)
    if target != real_root and not target.startswith(real_root.rstrip("/") + "/"):
        raise DataError(
            f"file name {name!r} leads out of the data root {root} through a symbolic link to {target}; "
            f"name the folder that holds the files as the data root"
        )
    return relative


@lru_cache(maxsize=64)
def _absolute(root: Path) -> str:
    return os.path.abspath(root)


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    """Folders repeat for each of their pictures: resolving them once keeps a name at 5 µs."""
    return os.path.realpath(folder)
