"""The folder of one training run: names of its files, who may write into it, numbers of its evaluations."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boxmatch.errors import CheckpointError
from boxmatch.training.run_log import is_first_process

# A lock without content is being written by another process, or was left by one that died just then.
_LOCK_SECONDS = 5.0


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class RunFolder:
    """Names the files of a run and writes those that hold its numbers.

    Args:
        root: the folder; made when the run starts.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.last = self.root / "checkpoints" / "last.ckpt"
        self.best = self.root / "checkpoints" / "best.ckpt"
        self.best_weights = self.root / "best.safetensors"
        self.last_weights = self.root / "last.safetensors"
        self.metrics = self.root / "metrics.json"
        self.curves = self.root / "pr_curves.json"
        self.epochs = self.root / "metrics.csv"
        self.steps = self.root / "steps.csv"
        self.log = self.root / "train.log"
        self.lock = self.root / ".lock"

    def write_metrics(self, last: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """metrics.json: `map`, `map_50`, `per_class` of the last evaluation, then `last` and `best` in full.

        The precision over recall goes into pr_curves.json, to keep the other one readable.
        """
        parts = {"last": last, "best": best}
        top = {key: last[key] for key in ("map", "map_50", "per_class")}
        numbers = {name: {k: v for k, v in part.items() if k != "curves"} for name, part in parts.items()}
        curves = {name: part["curves"] for name, part in parts.items()}
        write_atomically(self.metrics, json.dumps({**top, **numbers}, indent=2) + "\n")
        write_atomically(self.curves, json.dumps(curves) + "\n")

    @contextmanager
    def occupied(self, resume: bool) -> Iterator[None]:
        """Make the folder and keep other runs out of it; only the first process does.

        Args:
            resume: the folder must hold a run, instead of must not.

        Raises:
            CheckpointError: the folder holds a run and none is resumed, holds none to resume, cannot be
                written, or another process is writing into it.
        """
        if not is_first_process():
            yield
            return
        if resume and not self.last.parent.is_dir():
            raise CheckpointError(f"there is no run in {self.root}; give --resume the folder of a run")
        if not resume and self.last.exists():
            raise CheckpointError(
                f"{self.root} holds a run already; continue it with --resume {self.root}, or choose another "
                "--output"
            )
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            self._lock()
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise CheckpointError(
                f"cannot write into {self.root} ({error}); choose another --output"
            ) from error
        try:
            yield
        finally:
            self.lock.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Write process number and host into .lock, unless a living process has."""
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "job": os.environ.get("SLURM_JOB_ID")}
        while True:
            try:
                handle = os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                owner = self._owner()
                if owner is None and self._lock_age() < _LOCK_SECONDS:
                    time.sleep(0.1)
                    continue
                if owner is not None and not _is_dead(owner):
                    raise CheckpointError(
                        f"another run is writing into {self.root} (process {owner.get('pid')} on "
                        f"{owner.get('host')}); wait for it or choose another --output. If it is gone, "
                        f"delete {self.lock}"
                    ) from None
                self.lock.unlink(missing_ok=True)
                continue
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(mine, file)
            return

    def _owner(self) -> dict[str, Any] | None:
        """Who holds the lock; None if it has just been given up or is not written yet."""
        try:
            owner = json.loads(self.lock.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return owner if isinstance(owner, dict) else None

    def _lock_age(self) -> float:
        """Seconds since the lock was touched; very many where it is gone."""
        try:
            return time.time() - self.lock.stat().st_mtime
        except FileNotFoundError:
            return float("inf")


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether the process is gone; known of other machines only if a cluster has queued our own job again."""
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int):
        return owner.get("job") is not None and owner["job"] == os.environ.get("SLURM_JOB_ID")
    if pid == os.getpid():
        return True  # left by an earlier program with our number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
