"""Arguments of a detector's constructor, handed on by name."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

# Parts are saved beside the network, and where the weights once came from changes nothing.
_PARTS = frozenset({"pretrained", "coder", "assigner", "loss", "postprocess"})


def network_arguments(
    family: Callable[..., Any], values: Mapping[str, Any], *, without: Collection[str] = ()
) -> dict[str, Any]:
    """The keyword arguments of a detector's class that shape its network, as plain values for a saved file.

    Args:
        family: whose constructor it is.
        values: by name, e.g. `locals()` of that constructor; others are passed over.
        without: further keyword arguments that leave no trace in the network.
    """
    names = keyword_names(family) - _PARTS - set(without)
    return {name: _plain(value) for name, value in values.items() if name in names}


def shared_arguments(part: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that a part of the network takes by keyword under the same name."""
    names = keyword_names(part)
    return {name: value for name, value in values.items() if name in names}


def keyword_names(constructor: Callable[..., Any]) -> frozenset[str]:
    """Names of the arguments that are given by keyword only."""
    parameters = inspect.signature(constructor).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def _plain(value: Any) -> Any:
    """Sequences as the lists that a file of JSON makes of them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
