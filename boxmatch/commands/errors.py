"""Exit codes, and the sentence a user reads for each kind of error."""

import errno

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_DIVERGED = 5
EXIT_ENVIRONMENT = 6
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """Something on the command line or in a configuration file is wrong; the text says what and what to write instead."""


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: what happened, where, and what to do.
        code: exit code of the program.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# By name, so that naming an exit code does not import torch; `explain` looks through the base classes too.
CODES = {
    "UsageError": EXIT_USAGE,
    "DataError": EXIT_DATA,
    "CheckpointError": EXIT_CHECKPOINT,
    "DivergedError": EXIT_DIVERGED,
    "MemoryError": EXIT_ENVIRONMENT,
    "OutOfMemoryError": EXIT_ENVIRONMENT,
    "ImportError": EXIT_ENVIRONMENT,
    "FileNotFoundError": EXIT_DATA,
    "ValueError": EXIT_USAGE,
}

ENVIRONMENT_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with --output",
    errno.EACCES: "no permission; choose another folder with --output",
    errno.EROFS: "the folder cannot be written; choose another one with --output",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder with --output",
}


def explain(error: Exception) -> tuple[int, str | None]:
    """Exit code and message of an error; no message when the error is a fault of ours and needs its traceback."""
    if isinstance(error, CommandError):
        return error.code, str(error)
    if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRORS:
        return EXIT_ENVIRONMENT, f"{error}: {ENVIRONMENT_ERRORS[error.errno]}"
    if isinstance(error, FileNotFoundError) and error.errno is not None:
        return EXIT_DATA, f"there is no file or folder {error.filename}"
    for base in type(error).__mro__:
        if base.__name__ in CODES:
            return CODES[base.__name__], str(error) or base.__name__
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return EXIT_ENVIRONMENT, f"a process that reads the pictures has died: {error}; try --data.workers 0"
    return EXIT_FAULT, None
