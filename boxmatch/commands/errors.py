"""Exit codes, and the sentence a user reads for each kind of error."""

import errno

from boxmatch.errors import CheckpointError, DataError, DivergedError, ProcessLostError

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_DIVERGED = 5
EXIT_ENVIRONMENT = 6
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """Something on the command line or in a configuration is wrong; the text says what to write instead."""


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: what happened, where, and what to do.
        code: exit code of the program.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# The first class that fits decides, so the special ones come before ValueError, which they are too.
CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, EXIT_USAGE),
    (DataError, EXIT_DATA),
    (CheckpointError, EXIT_CHECKPOINT),
    (DivergedError, EXIT_DIVERGED),
    (ProcessLostError, EXIT_ENVIRONMENT),
    (MemoryError, EXIT_ENVIRONMENT),
    (ModuleNotFoundError, EXIT_ENVIRONMENT),
    (FileNotFoundError, EXIT_DATA),
    (ValueError, EXIT_USAGE),
)

ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with --output",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder with --output",
    errno.EACCES: "no permission; choose another folder with --output",
    errno.EROFS: "the folder cannot be written; choose another one with --output",
}


def explain(error: Exception) -> tuple[int, str | None]:
    """Exit code and message of an error; no message for a fault of ours, which needs its traceback."""
    if isinstance(error, CommandError):
        return error.code, str(error)
    if isinstance(error, OSError) and error.errno in ADVICE:
        return EXIT_ENVIRONMENT, f"{error}: {ADVICE[error.errno]}"
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return EXIT_DATA, f"there is no file or folder {error.filename}"
    if "out of memory" in str(error):
        return EXIT_ENVIRONMENT, f"{error}\nMake --data.batch_size or --data.image_size smaller."
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return EXIT_ENVIRONMENT, f"a process that reads pictures has died: {error}; try --data.workers 0"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("boxmatch"):
        return EXIT_FAULT, None
    for kind, code in CODES:
        if isinstance(error, kind):
            return code, str(error) or kind.__name__
    return EXIT_FAULT, None
