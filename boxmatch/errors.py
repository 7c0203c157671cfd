"""The error types that a user can cause, without any heavy import."""

from collections.abc import Sequence


class DataError(ValueError):
    """Data that cannot be used; each problem says what is wrong, where, and what to do.

    Args:
        problems: one sentence or several. The text of the error holds one line for each.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, written or continued from; the text names the file and the remedy."""


class NotFiniteError(ValueError):
    """Predictions with a value that is not finite, where one cannot be used; the text says which."""


class DivergedError(RuntimeError):
    """A training whose loss or gradient is no longer finite; the text says which term, step and pictures."""


class ProcessLostError(RuntimeError):
    """Another process of a distributed training is gone or no longer answers."""
