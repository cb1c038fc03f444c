"""document: the YAML of a seed as plain values. Pure.

Stricter than YAML: no aliases (ten lines of them unfold to gigabytes where a value is shown), no key twice
(the first would be gone without a word), keys are text. What is wrong is said by its place alone: a line of a
seed may be one of a key, and mistakes go to console and journal.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST = 1 << 20
"""Characters."""
TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            where = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=where)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if key.tag != TEXT:
                raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem="a key is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        found = super().construct_scalar(node)
        found.encode()  # half a surrogate pair is in no file
        return found


def read(text: str) -> Any:
    """What it says. Raises ValueError with what is wrong, in one line."""
    if len(text) > MOST:
        raise ValueError(f"longer than {MOST:,} characters")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"no YAML: {error.problem or error.context}{line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates that do not exist
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from error
