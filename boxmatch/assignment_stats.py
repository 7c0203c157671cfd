"""What an assignment gave to each box, in numbers."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True)
class AssignmentStats:
    """What an assignment gave to each box, in numbers; `print(stats)` gives a short summary.

    Args:
        positives: positive priors of each box.
        level_positives: the same, split by level.
        starved: rows of boxes (ignore regions excepted) that no prior learns.
        contested: number of priors that several boxes of their image asked for.
        ignored: number of priors that take no part.
        background: number of priors that are neither positive nor ignored.
    """

    positives: Int64[Tensor, "G"]
    level_positives: Int64[Tensor, "G L"]
    starved: Int64[Tensor, "S"]
    contested: int
    ignored: int
    background: int

    @property
    def total(self) -> int:
        """Number of positive pairs."""
        return int(self.positives.sum())

    def __str__(self) -> str:
        levels = ", ".join(str(count) for count in self.level_positives.sum(0).tolist())
        parts = (
            f"{len(self.positives)} boxes",
            f"{self.total} positives (by level: {levels})",
            f"{len(self.starved)} without a positive",
            f"{self.contested} contested priors",
            f"{self.ignored} ignored",
            f"{self.background} background",
        )
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The same numbers as lists and integers, for JSON."""
        return {
            "positives": self.positives.tolist(),
            "level_positives": self.level_positives.tolist(),
            "starved": self.starved.tolist(),
            "total": self.total,
            "contested": self.contested,
            "ignored": self.ignored,
            "background": self.background,
        }
