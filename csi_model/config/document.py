"""Write docs/configuration.md from the model: ``python -m csi_model.config.document > docs/configuration.md``."""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from csi_model.config.model import Config, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_HEAD = """# Configuration

<!-- Generated from csi_model/config/model.py by `make docs`; edit the descriptions there. -->

One YAML file, given with `--config`. Every key has a default that serves a laptop and a node alike, so an empty file is a good one. A key that csi-model
does not know is refused with its path, and so is a key that is written twice.

A **duration** is a number of seconds, or a number with a unit: `500ms`, `90s`, `10m`, `2h`, `1d`. A **size** is a number of bytes, or
a number with a unit: `64MiB`, `2GiB`, `1TB`.

```yaml
{example}```
"""

_EXAMPLE = """\
registries:
  registry.example:5000:
    caFile: /etc/csi-model/registry-ca.pem
    credentialsFile: /etc/csi-model/registry.json
pull:
  activeBlobs: 8
  freeSpaceReserve: 20GiB
views:
  idle: 30m
layouts:
  allowedPrefixes: ["oci-layout:///srv/models/"]
logLevel: info
"""

_TIMES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def render() -> str:
    """The whole page."""
    return "".join([_HEAD.format(example=_EXAMPLE), *_section(Config, "", "Top level")]).rstrip() + "\n"


def example() -> str:
    """The page's example, which a test loads."""
    return _EXAMPLE


def _section(model: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    """A table of the section's own keys, then the sections below it."""
    values = {name: field for name, field in model.model_fields.items() if _section_of(field) is None}
    if values:
        yield f"\n## {title}\n\n"
        if prefix:
            yield f"{model.__doc__}\n\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|\n"
        for name, field in values.items():
            yield f"| `{prefix}{field.alias or name}` | {_type(field)} | {_default(field)} | {_meaning(field)} |\n"
    for name, field in model.model_fields.items():
        below = _section_of(field)
        if below is not None:
            key = f"{prefix}{field.alias or name}" + (".HOST" if get_origin(field.annotation) is dict else "")
            yield from _section(below, f"{key}.", f"`{key}`")


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, or a mapping's values do; None for a plain value."""
    candidate = get_args(field.annotation)[-1] if get_origin(field.annotation) is dict else field.annotation
    return candidate if isinstance(candidate, type) and issubclass(candidate, BaseModel) else None


def _type(field: FieldInfo) -> str:
    unit = _unit(field)
    limits = [
        f"{word} {getattr(item, name)}"
        for item in field.metadata
        for name, word in (("ge", "from"), ("le", "to"))
        if getattr(item, name, None) is not None and unit is None
    ]
    return " ".join([unit.value if unit else _name(field.annotation), *limits])


def _name(annotation: Any) -> str:
    """What a person calls a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _name(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is types.UnionType:
        return " or ".join(_name(item) for item in arguments if item is not type(None))
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    return {bool: "true or false", int: "number", float: "number", str: "text", Path: "path"}[annotation]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    unit = _unit(field)
    if value is PydanticUndefined or value is None:
        return "none"
    if unit is not None:
        return f"`{_scaled(value, _TIMES if unit is Unit.SECONDS else _SIZES)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value == () else f"`{value}`"


def _scaled(value: float, units: tuple[tuple[int, str], ...]) -> str:
    """The number in the largest unit that divides it."""
    for size, name in units:
        if value and value % size == 0:
            return f"{int(value // size)}{name}"
    return f"{value:g}"


def _unit(field: FieldInfo) -> Unit | None:
    return next((item for item in field.metadata if isinstance(item, Unit)), None)


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render())
