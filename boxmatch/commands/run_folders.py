"""Where runs are put, and what is taken from a finished one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from boxmatch.checkpoints import load_detector
from boxmatch.commands.errors import EXIT_CHECKPOINT, CommandError, UsageError
from boxmatch.models.detector import Detector
from boxmatch.training.run_log import is_first_process

CONFIG = "config.yaml"
INHERITED = "BOXMATCH_OUTPUT"
WEIGHTS = ("best.safetensors", "last.safetensors", "detector.safetensors")


def output_folder(given: str | None, kind: str) -> Path:
    """The folder of a new run: the given one, or the next free `runs/KIND-001`.

    Raises:
        UsageError: several processes were started and would each choose their own folder.
    """
    if given is not None:
        return Path(given)
    if not is_first_process() and INHERITED in os.environ:
        return Path(os.environ[INHERITED])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("with several processes give the folder of the run: --output runs/NAME")
    taken = {path.name for path in Path("runs").glob(f"{kind}-*")}
    name = next(name for name in (f"{kind}-{number:03d}" for number in count(1)) if name not in taken)
    # Processes that Lightning starts from here must not count on their own.
    os.environ[INHERITED] = str(Path("runs") / name)
    return Path("runs") / name


@contextmanager
def checkpoint_errors() -> Iterator[None]:
    """What is wrong with a weight file becomes exit code 4."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error), EXIT_CHECKPOINT) from error


def weight_file(run: str | None, weights: str | None) -> Path:
    """The weights of a run (the best ones), or the given file.

    Raises:
        UsageError: neither or both are given.
        CommandError: there is no such run or file.
    """
    if (run is None) == (weights is None):
        raise UsageError("give either --run RUN_DIR (uses its best weights) or --weights FILE.safetensors")
    path = Path(run or weights or "")
    if not path.exists():
        kind = "run" if run else "weight file"
        raise CommandError(f"there is no {kind} {path}", EXIT_CHECKPOINT)
    if path.is_file():
        if path.suffix in (".pth", ".pt", ".ckpt"):
            raise CommandError(
                f"{path} is no weight file of boxmatch; read a checkpoint of the original project with "
                f"boxmatch convert {path}, or give the run folder of a .ckpt with --run",
                EXIT_CHECKPOINT,
            )
        return path
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise CommandError(
        f"{path} holds none of {', '.join(WEIGHTS)}; was the run evaluated at least once?", EXIT_CHECKPOINT
    )


def load(file: Path, **postprocess: Any) -> Detector:
    """A detector from its weight file; options of its post-processing that are not None replace the saved."""
    with checkpoint_errors():
        detector = load_detector(file)
    changes = {name: value for name, value in postprocess.items() if value is not None}
    if changes:
        detector.postprocess = replace(detector.postprocess, **changes)
    return detector


def run_config(file: Path) -> Path | None:
    """The configuration beside a weight file, if it lies in a run folder."""
    config = file.parent / CONFIG
    return config if config.is_file() else None


def with_run_config(arguments: Sequence[str]) -> list[str]:
    """The configuration of the run that `--run` or `--weights` names comes before what the user gave."""
    for place, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--run", "--weights"):
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            config = Path(value) / CONFIG if flag == "--run" else Path(value).parent / CONFIG
            if config.is_file():
                return ["--config", str(config), *arguments]
    return list(arguments)
