"""Time of the phases of a call, those inside other phases counted once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Times:
    """Wall time, and time of all threads of this process; milliseconds."""

    wall: float
    processor: float

    def __sub__(self, other: "Times") -> "Times":
        return Times(self.wall - other.wall, self.processor - other.processor)

    def __add__(self, other: "Times") -> "Times":
        return Times(self.wall + other.wall, self.processor + other.processor)

    def per(self, count: int) -> "Times":
        """One of `count` equal parts."""
        return Times(self.wall / count, self.processor / count)


NO_TIME = Times(0.0, 0.0)


class PhaseClock:
    """Adds up what each phase took; a phase inside another one is taken out of the outer one.

    So a function deep inside somebody else's code becomes a phase of its own by wrapping it, and the phases
    still sum to the whole.
    """

    def __init__(self) -> None:
        self._spent: dict[str, Times] = {}
        self._inside: list[Times] = []  # time of the phases inside each phase that runs now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside belongs to this phase."""
        start = _now()
        self._inside.append(NO_TIME)
        try:
            yield
        finally:
            whole = _now() - start
            self._spent[name] = self._spent.get(name, NO_TIME) + whole - self._inside.pop()
            if self._inside:
                self._inside[-1] += whole

    def wrap(self, name: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The same function, each call of it a phase."""

        @wraps(function)
        def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def take(self) -> dict[str, Times]:
        """What each phase took since the last call."""
        spent, self._spent = self._spent, {}
        return spent


def _now() -> Times:
    return Times(1000 * time.perf_counter(), 1000 * time.process_time())
