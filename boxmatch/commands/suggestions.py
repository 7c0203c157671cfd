"""What to write instead of a misspelt key, class name or value."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any


def nearest(word: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The valid words most like `word`, best first; the case of letters does not matter."""
    by_lower = {name.lower(): name for name in valid}
    return [by_lower[near] for near in difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)]


def advice(word: str, valid: Iterable[str]) -> str:
    """A sentence with the nearest valid words, or with all of them when none is near."""
    names = sorted(set(valid))
    near = nearest(word, names)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"valid are: {', '.join(names)}" if names else "it has no options"


def key_advice(word: str, keys: Iterable[str]) -> str:
    """The same for a dotted key, looked for among the keys beside it first."""
    names = [key for key in keys if not key.endswith(("+", ".help"))]
    parent = word.rpartition(".")[0]
    beside = [key for key in names if key.rpartition(".")[0] == parent]
    return advice(word, beside if beside and (nearest(word, beside) or not nearest(word, names)) else names)


def subclass_names(base: type[Any]) -> list[str]:
    """Names of all imported classes that may stand where `base` is asked for."""
    children: list[type[Any]] = base.__subclasses__()
    below = [name for child in children for name in subclass_names(child)]
    return below if inspect.isabstract(base) else [base.__name__, *below]


def parameter_names(path: str) -> list[str]:
    """Options of the class with this dotted path."""
    found = _import(path)
    return (
        [name for name in inspect.signature(found).parameters if name not in ("args", "kwargs")]
        if found
        else []
    )


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None


def _place(text: str, position: int) -> str:
    """Dotted name of the option whose complaint stands at `position`."""
    return ".".join(re.findall(r'[Pp]arser key "([^"]+)"', text[:position]))


def _about_keys(text: str, keys: list[str]) -> Iterator[str]:
    for match in re.finditer(r"(?:Group '([^']+)' does not accept option|Option) '([^']+)'", text):
        owners = re.findall(r"class_path '([^']+)'", text[: match.start()])
        place = _place(text, match.start())
        if owners:
            owner = owners[-1].rpartition(".")[2]
            hint = advice(match[2], parameter_names(owners[-1]))
            yield f"{place or owner}: {owner} has no option '{match[2]}'; {hint}"
        else:
            name = ".".join(part for part in (place, match[1], match[2]) if part)
            yield f"there is no option '{name}'; {key_advice(name, keys)}"
    for match in re.finditer(r"[Uu]nrecognized arguments: (.+)", text):
        words = [part for part in match[1].split() if part.startswith("-")] or match[1].split()
        name = words[0].lstrip("-").partition("=")[0]
        yield f"there is no option '{words[0].partition('=')[0]}'; {key_advice(name, keys)}"
    for match in re.finditer(r"arguments? (?:are|is) required: (.+)", text):
        yield f"{' and '.join('--' + name.strip() for name in match[1].split(','))} must be given"


def _about_classes(text: str) -> Iterator[str]:
    for match in re.finditer(r"Expected a dot import path string: (\S+)", text):
        bases = re.findall(r"<class '([^']+)'>", text[: match.start()])
        base = next((found for found in map(_import, reversed(bases)) if isinstance(found, type)), None)
        if base is not None:
            hint = advice(match[1], subclass_names(base))
            yield f"{_place(text, match.start())}: there is no {base.__name__} named '{match[1]}'; {hint}"
    for match in re.finditer(
        r"class_path '([^']+)':\s+(No module named .+|Import path .+|.* not a subclass of .+)", text
    ):
        yield f"{_place(text, match.start())}: cannot use {match[1]}: {match[2].strip()}"


def _about_values(text: str) -> Iterator[str]:
    for match in re.finditer(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (.+)", text):
        valid, value = re.findall(r"'([^']*)'", match[1]) or match[1].split(", "), match[2].strip()
        yield f"{_place(text, match.start())}: '{value}' is not a valid value; {advice(value, valid)}"
    for match in re.finditer(r"Expected a <class '(\w+)'>\. Got value: (.+)", text):
        yield f"{_place(text, match.start())}: expected {match[1]}, got '{match[2].strip()}'"
    for match in re.finditer(r"Subtypes: \[([^\n]+)\]\n.*?Given value: ([^\n]+)", text, re.DOTALL):
        kinds = re.sub(r"<class '(\w+)'>|typing\.", r"\1", match[1]).replace("NoneType", "null")
        if "class '" not in kinds:  # a choice of plain types; classes of ours are dealt with above
            yield f"{_place(text, match.start())}: expected one of {kinds}, got '{match[2].strip()}'"


def explain_parser_error(text: str, keys: Iterable[str]) -> str:
    """Shorten a message of jsonargparse to what is wrong and what to write instead.

    Args:
        text: its message, often a tree of nested complaints of which the deepest is the cause.
        keys: dotted names of all options of the command.
    """
    for complaints in (_about_keys(text, list(keys)), _about_classes(text), _about_values(text)):
        found = list(complaints)
        if found:
            return found[-1]
    return text.strip()
