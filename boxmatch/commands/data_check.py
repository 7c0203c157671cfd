"""The look at the data before anything else."""

from typing import TYPE_CHECKING, Any

from boxmatch.commands.parser import instantiate
from boxmatch.data.module import DataModule
from boxmatch.data.report import CheckReport

if TYPE_CHECKING:
    from jsonargparse import Namespace

# Below this, the check is over before anyone could read a progress bar.
PROGRESS_FROM = 2000


def check_data(data: DataModule, *, speak: bool = True) -> CheckReport:
    """Check the data, with a progress bar when there are many pictures.

    Raises:
        DataError: there is nothing to check.
    """
    from tqdm.auto import tqdm

    bar: Any = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and total >= PROGRESS_FROM and speak:
            bar = tqdm(total=total, desc="checking the data", unit="picture", leave=False, disable=None)
        if bar is not None:
            bar.update(done - bar.n)

    try:
        return data.check(progress)
    finally:
        if bar is not None:
            bar.close()


def checked_data(config: "Namespace", *, speak: bool, **computed: Any) -> DataModule:
    """The data of a configuration after their check; the class table and all problems are printed.

    Args:
        config: what the parser gave.
        speak: print the report.
        computed: arguments of the data module that are not in the configuration.

    Raises:
        DataError: the data cannot be used.
    """
    data: DataModule = instantiate(config, "data", **computed)
    report = check_data(data, speak=speak)
    if speak:
        print(report.text())
    report.refuse()
    return data
