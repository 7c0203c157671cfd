"""A class that the user names as package.module:Class, and a factory of it."""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from boxmatch.commands.errors import EXIT_ENVIRONMENT, CommandError, UsageError
from boxmatch.commands.suggestions import advice, explain_parser_error
from boxmatch.conformance import Subject


def find(place: str) -> Any:
    """The object at package.module:name; modules in the current folder come first, as for `python -m`.

    Raises:
        UsageError: there is no such module or name, or importing it fails; the text names the nearest ones.
        CommandError: the module itself imports something that is not installed.
    """
    module_name, colon, name = place.partition(":")
    if not (module_name and colon and name):
        before, _, last = place.strip(":").rpartition(".")
        meant = f"{before or 'boxmatch.assign'}:{last}"
        raise UsageError(f"expected PACKAGE.MODULE:CLASS, got '{place}'; did you mean '{meant}'?")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            # A name that the module imported for itself is rarely meant, but an assigner may be among them.
            names = [word for word, value in vars(found).items() if callable(value) and word[0] != "_"]
            raise UsageError(f"{module_name} has no '{name}'; {advice(part, names)}")
        found = getattr(found, part)
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise CommandError(
                f"{name} imports {missing}, which is not installed", EXIT_ENVIRONMENT
            ) from error
        parent, _, last = missing.rpartition(".")
        search = importlib.import_module(parent).__path__ if parent else None
        beside = {info.name for info in pkgutil.iter_modules(search)}
        home = f"in {parent}" if parent else f"in {os.getcwd()} or among the installed ones"
        raise UsageError(f"there is no module '{last}' {home}; {_few(last, beside)}") from error
    except Exception as error:  # whatever somebody's module does when it is imported
        raise UsageError(f"cannot import {name}: {type(error).__name__}: {error}") from error


def _few(word: str, names: set[str]) -> str:
    """Advice, but never the list of all installed modules."""
    said = advice(word, names)
    return said if said.startswith("did you mean") else "give it as PACKAGE.MODULE:CLASS"


def factory_of(found: Any, options: Sequence[str]) -> Callable[[], Any]:
    """What makes the assigner: a class or function with its arguments, a `Subject`, or an assigner itself.

    Args:
        found: from `find`.
        options: `--args.name value`, `--args JSON`.

    Raises:
        UsageError: an argument is unknown, missing or refused, or nothing can be made of what was found.
    """
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        if options:
            raise UsageError(f"there is no option '{options[0]}', because {found!r} is made already")
        if not callable(found):
            raise UsageError(f"expected a class, a function or an assigner, got {found!r}")
        return found if isinstance(found, Subject) else lambda: found
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    add = parser.add_class_arguments if inspect.isclass(found) else parser.add_function_arguments
    add(found, "args", fail_untyped=False)
    try:
        config = parser.parse_args(list(options))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UsageError(explain_parser_error(str(error), _options(parser))) from error

    def make() -> Any:
        ready = parser.instantiate(config).get(
            "args", {}
        )  # the object of a class, the arguments of a function
        return ready if inspect.isclass(found) else found(**vars(ready) if ready else {})

    try:
        make()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{found.__name__} cannot be made: {error}") from error
    return make


def _options(parser: ArgumentParser) -> list[str]:
    """Dotted names of the arguments."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return [flag.removeprefix("--") for flag in flags if flag != "--args"]
