"""What to write instead of a misspelt key, class name or value."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator


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
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"valid are: {shown}" if names else ""


def subclass_names(base: type) -> list[str]:
    """Names of all imported classes that may stand where `base` is asked for."""
    found = [] if inspect.isabstract(base) else [base.__name__]
    for child in base.__subclasses__():
        found += subclass_names(child)
    return found


def parameter_names(path: str) -> list[str]:
    """Options of the class or function with this dotted path."""
    found = _import(path)
    return [name for name in inspect.signature(found).parameters if name not in ("args", "kwargs")] if found else []


def _import(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None


def _place(text: str, position: int) -> str:
    """Dotted path of the option whose complaint stands at `position`."""
    keys = re.findall(r'[Pp]arser key "([^"]+)"', text[:position])
    return ".".join(keys)


def _key_advice(text: str, keys: list[str]) -> Iterator[str]:
    for match in re.finditer(r"Option '([^']+)' is not accepted", text):
        owners = re.findall(r"class_path '([^']+)'", text[: match.start()])
        place = _place(text, match.start())
        if owners:
            valid, owner = parameter_names(owners[-1]), owners[-1].rpartition(".")[2]
            yield f"{place or owner}: {owner} has no option '{match[1]}'; {advice(match[1], valid)}"
        else:
            name = f"{place}.{match[1]}" if place else match[1]
            yield f"there is no option '{name}'; {advice(name, keys)}"
    for match in re.finditer(r"[Uu]nrecognized arguments: (.+)", text):
        word = next((part for part in match[1].split() if part.startswith("--")), match[1].split()[0])
        name = word.lstrip("-").partition("=")[0]
        yield f"there is no option '{word.partition('=')[0]}'; {advice(name, keys)}"


def _class_advice(text: str) -> Iterator[str]:
    patterns = r"Expected a dot import path string: (\S+)|Import path \S+ does not|Unexpected import path format: (\S+)"
    for match in re.finditer(patterns, text):
        word = match[1] or match[2] or ""
        bases = re.findall(r"<class '([^']+)'>", text[: match.start()])
        base = next((found for found in map(_import, reversed(bases)) if isinstance(found, type)), None)
        if base is not None and word:
            hint = advice(word, subclass_names(base))
            yield f"{_place(text, match.start())}: there is no {base.__name__} named '{word}'; {hint}"


def _value_advice(text: str) -> Iterator[str]:
    for match in re.finditer(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (.+)", text):
        valid = re.findall(r"'([^']*)'", match[1]) or match[1].split(", ")
        yield f"{_place(text, match.start())}: '{match[2].strip()}' is not a valid value; {advice(match[2].strip(), valid)}"
    for match in re.finditer(r"Expected a <class '(\w+)'>\. Got value: (.+)", text):
        yield f"{_place(text, match.start())}: expected {match[1]}, got '{match[2].strip()}'"


def explain_parser_error(text: str, keys: Iterable[str]) -> str:
    """Shorten a message of jsonargparse to what is wrong and what to write instead.

    Args:
        text: its message, often a tree of nested complaints of which the deepest is the cause.
        keys: dotted names of all options of the command.
    """
    known = list(keys)
    for complaints in (_key_advice(text, known), _class_advice(text), _value_advice(text)):
        found = list(complaints)
        if found:
            return found[-1]
    return text.strip()
