"""The look at the data before the first step."""

from typing import TYPE_CHECKING

from boxmatch.commands.parser import instantiate
from boxmatch.data.module import DataModule

if TYPE_CHECKING:
    from jsonargparse import Namespace


def checked_data(config: "Namespace", *, speak: bool) -> DataModule:
    """The data module of a configuration after its check; the report is printed.

    Raises:
        DataError: the data cannot be used.
    """
    data: DataModule = instantiate(config, "data")
    data.class_names  # noqa: B018
    return data
