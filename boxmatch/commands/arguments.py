"""Parser of the commands without a configuration file."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from boxmatch.commands.errors import UsageError
from boxmatch.commands.suggestions import advice


class PlainParser(argparse.ArgumentParser):
    """argparse whose complaints are `UsageError`s that name the nearest valid option.

    Args:
        command: name of the command.
    """

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"boxmatch {command}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read the arguments.

        Raises:
            UsageError: an option is unknown, lacks its value or has a wrong one.
        """
        options, unknown = self.parse_known_intermixed_args(list(arguments))
        for word in unknown:
            if word.startswith("-"):
                flags = [flag for action in self._actions for flag in action.option_strings]
                name = word.partition("=")[0]
                raise UsageError(f"there is no option '{name}'; {advice(name, flags)}")
        if unknown:
            raise UsageError(f"cannot make sense of {' '.join(unknown)}; see {self.prog} --help")
        return options
