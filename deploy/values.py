"""What the chart's values.yaml says of itself: its keys, defaults and comments, as a JSON schema and as a table for docs/install.md.

A comment right above a key is its description. A comment that begins with ``@schema`` is JSON that is added to what the default's type says.
A mapping whose keys have comments is a section; any other value, mappings included, is one value that is replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from csi_model.config.schema import definitions

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).resolve().parent / "charts" / "csi-model"
VALUES = CHART / "values.yaml"

_KINDS = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
_MARK = "@schema "
# What the chart itself puts into the driver's configuration.
_DECIDED = ("driverName", "kubeletRoot")


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml; a section has ``parts``, anything else a ``default``."""

    path: tuple[str, ...]
    description: str
    extra: dict[str, Any]
    default: Any
    parts: tuple[Value, ...]

    @property
    def name(self) -> str:
        """The key as ``--set`` takes it."""
        return ".".join(self.path)


def read(path: Path = VALUES) -> tuple[Value, ...]:
    """The file's keys, in order."""
    lines = path.read_text().splitlines()
    root = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return tuple(_values(root, (), lines))


def schema() -> dict[str, Any]:
    """The chart's values.schema.json: values as the file has them, and below ``config`` the driver's own configuration."""
    sections = definitions()
    for key in _DECIDED:
        del sections["Csi"]["properties"][key]
    whole = _section(read(), "Values of the chart csi-model.")
    # Helm adds it for charts inside of charts.
    whole["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **whole, "definitions": sections}


def table() -> str:
    """A Markdown table of all values."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows.extend(f"| `{value.name}` | {_shown(value.default)} | {value.description} |" for value in _leaves(read()))
    return "\n".join(rows) + "\n"


def _values(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, below in node.value:
        path = (*above, str(key.value))
        description, extra = _comment(lines, key.start_mark)
        assert description, f"{'.'.join(path)} has no comment in {VALUES.name}"
        parts = tuple(_values(below, path, lines)) if _is_section(below, lines) else ()
        yield Value(path, description, extra, None if parts else _plain(below), parts)


def _is_section(node: yaml.Node, lines: list[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and any(_comment(lines, key.start_mark)[0] for key, _ in node.value)


def _comment(lines: list[str], mark: yaml.Mark) -> tuple[str, dict[str, Any]]:
    """The comment lines right above a key that begins its line: the description, and what ``@schema`` adds."""
    indent = " " * mark.column + "# "
    words: list[str] = []
    extra: dict[str, Any] = {}
    row = mark.line - 1
    while row >= 0 and lines[row].startswith(indent) and not lines[mark.line][: mark.column].strip():
        text = lines[row].removeprefix(indent)
        if text.startswith(_MARK):
            extra = json.loads(text.removeprefix(_MARK))
        else:
            words.insert(0, text)
        row -= 1
    return " ".join(words), extra


def _plain(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _section(values: tuple[Value, ...], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": {value.path[-1]: _schema(value) for value in values},
    }


def _schema(value: Value) -> dict[str, Any]:
    if value.parts:
        return _section(value.parts, value.description)
    if "$ref" in value.extra:
        return value.extra
    typed = {} if "enum" in value.extra else {"type": _KINDS[type(value.default)]}
    return {**typed, "description": value.description, "default": value.default, **value.extra}


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        if value.parts:
            yield from _leaves(value.parts)
        else:
            yield value


def _shown(default: Any) -> str:
    if default in ("", [], {}):
        return "none"
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"
