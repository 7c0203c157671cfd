"""YAML of configuration and data files, without surprises: plain data, unique keys, 1e-3 is a number."""

import re
from typing import Any

import yaml

# Limits against hostile files; a recipe has about 2 kB, depth 6 and no alias.
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50
MAX_ALIASES = 100

_BOOL, _FLOAT, _INT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int"))
_DROPPED = (_BOOL, _FLOAT, _INT, "tag:yaml.org,2002:timestamp")


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars (no yes/no, 0123, 1:30 traps), unique keys and limits."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node, counting depth and aliases."""
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.aliases > MAX_ALIASES:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_DEPTH} levels or {MAX_ALIASES} aliases", problem_mark=mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a dictionary; a key that stands there twice is an error instead of the last one winning."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key_node.value}' stands here twice; keep one of them",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# A table of its own: the parent's stays as it is.
StrictLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
StrictLoader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
# PyYAML reads 0123 as octal; here it is one hundred and twenty-three, as in YAML 1.2.
StrictLoader.add_constructor(_INT, lambda loader, node: int(str(node.value)))


def load_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: broken or hostile text; the message names line and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"the text has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    try:
        return yaml.load(text, Loader=StrictLoader)
    except RecursionError:
        raise yaml.YAMLError("the text is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from error
