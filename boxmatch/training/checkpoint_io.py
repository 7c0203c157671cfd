"""Checkpoints that survive a kill, a full disk and a flipped bit: written aside, moved, verified."""

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from boxmatch.errors import CheckpointError


def previous_generation(path: Path) -> Path:
    """Where the file that `path` replaced is kept."""
    return path.with_suffix(f".previous{path.suffix}")


def write_checkpoint(checkpoint: dict[str, Any], path: Path, keep_previous: bool = False) -> None:
    """Write a checkpoint so that at every moment a complete one lies on the disk.

    Args:
        checkpoint: tensors and plain values.
        path: the file.
        keep_previous: keep the file that was there under `previous_generation`.

    Raises:
        CheckpointError: the disk refuses; the file that was there stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            os.replace(path, previous_generation(path))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; it needs {_megabytes(buffer.tell())}"
            f", {_free(path)} are free. What was saved before is untouched: make room and continue with "
            "--resume"
        ) from error


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _free(path: Path) -> str:
    try:
        return _megabytes(shutil.disk_usage(path.parent).free)
    except OSError:
        return "an unknown number of MB"


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read and verify one checkpoint; no code in it is ever run.

    Raises:
        CheckpointError: the file is missing, cut, altered, or no checkpoint of a training run.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load ignores the checksums: a flipped bit would become a wrong weight without a word.
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged (checksum of {damaged} is wrong)")
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        # Damage shows as BadZipFile, EOFError, RuntimeError, UnpicklingError, KeyError ...: one text for all.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of a training run")
    return checkpoint


def read_newest(path: Path, map_location: Any = "cpu") -> tuple[dict[str, Any], Path, str | None]:
    """The checkpoint at `path`, or the one before it.

    Returns:
        The checkpoint, the file it came from, and what was wrong with the newer file, if anything.

    Raises:
        CheckpointError: neither can be read.
    """
    try:
        return read_checkpoint(path, map_location), path, None
    except CheckpointError as error:
        older = previous_generation(path)
        if not older.is_file():
            raise CheckpointError(
                f"{error}; there is no older one beside it, so the run cannot be continued"
            ) from error
        problem = str(error)
    try:
        return read_checkpoint(older, map_location), older, problem
    except CheckpointError as error:
        raise CheckpointError(f"{problem}; and {error}; the run cannot be continued") from error


class SafeCheckpointIO(CheckpointIO):
    """Hands the Trainer's checkpoints to `write_checkpoint` and `read_newest`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write; last.ckpt keeps the generation before it."""
        path = Path(path)
        write_checkpoint(checkpoint, path, keep_previous=path.stem == "last")

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the newest complete generation; the flag is ignored because code in a file is never run."""
        checkpoint, _, _ = read_newest(Path(path), map_location or "cpu")
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that may be missing."""
        Path(path).unlink(missing_ok=True)
