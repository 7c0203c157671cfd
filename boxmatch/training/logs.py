"""Where the rows of a run go: two CSV files and, if wanted, TensorBoard; a failing log stops no run."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from boxmatch.training.run_folder import RunFolder
from boxmatch.training.run_log import say
from boxmatch.training.table import Table


class Logs:
    """Rows per epoch and per step.

    Args:
        folder: the run.
        loggers: Lightning loggers that get every number as well.
    """

    def __init__(self, folder: RunFolder, loggers: list[Logger]) -> None:
        self.epochs, self.steps = Table(folder.epochs), Table(folder.steps)
        self.loggers = loggers
        self.complained: set[str] = set()

    def cut(self, epoch: int, step: int) -> None:
        """Keep the rows of epochs and steps before these."""
        self._try("metrics.csv", lambda: self.epochs.cut("epoch", epoch))
        self._try("steps.csv", lambda: self.steps.cut("step", step))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.csv."""
        self._try("metrics.csv", lambda: self.epochs.append(row))
        names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar")
        self._log({f"val/{name}": row[name] for name in names if row.get(name) is not None}, row["step"])

    def step(self, row: Mapping[str, Any]) -> None:
        """One row of steps.csv."""
        self._try("steps.csv", lambda: self.steps.append(row))
        self._log(
            {f"train/{name}": value for name, value in row.items() if name not in ("step", "epoch")},
            row["step"],
        )

    def _log(self, numbers: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            self._try(type(logger).__name__, lambda logger=logger: logger.log_metrics(numbers, step))  # type: ignore[misc]

    def _try(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            # Any backend may fail in its own way; numbers in a log are worth less than the run.
            if name not in self.complained:
                self.complained.add(name)
                say(f"cannot write {name} ({type(error).__name__}: {error}); the training goes on without it")
