"""What a slow loop decides in double precision, and whether single precision might decide otherwise."""

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


class Decisions:
    """Makes the decisions of a rule and remembers whether any was closer than rounding.

    Args:
        absolute: difference of two unequal values that may be rounding.
        relative: the same, as a share of the greater.
    """

    def __init__(self, absolute: float = 1e-5, relative: float = 1e-6) -> None:
        self.absolute, self.relative = absolute, relative
        self.doubtful = False

    def compare(self, value: float, other: float) -> None:
        """Note that the order of two values matters."""
        if value != other and math.isfinite(value + other):
            room = self.absolute + self.relative * max(abs(value), abs(other))
            self.doubtful |= abs(value - other) <= room

    def lowest(self, items: Sequence[tuple[float, Item]], k: int) -> list[Item]:
        """The items of the k lowest values; of equal ones those that sort first."""
        order = sorted(items)
        if 0 < k < len(order):
            self.compare(order[k - 1][0], order[k][0])
        return [item for _, item in order[:k]]

    def floor(self, terms: Sequence[float]) -> int:
        """The sum, rounded down."""
        total = math.fsum(terms)
        exact = all(float(term * 2**20).is_integer() for term in terms)
        self.doubtful |= not exact and abs(total - round(total)) <= self.absolute
        return math.floor(total)
