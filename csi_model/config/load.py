"""Read the configuration file: YAML in, ``Config`` or one message that lists everything wrong with it out."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from csi_model.config.model import Config
from csi_model.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

# A configuration is a page of text; more than this is some other file.
_MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key may not be written twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    # YAML lets the last of two equal keys win in silence, which hides half of what a person wrote.
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is written twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path) -> Config:
    """Read and validate the file.

    Raises:
        InvalidRequestError: it cannot be read, is no YAML, or has wrong keys or values; each of them is listed with its path.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        msg = f"cannot read the configuration {path}: {error.strerror}"
        raise InvalidRequestError(msg) from error
    if len(text) > _MAX_BYTES:
        msg = f"{path} is larger than 1 MiB and hardly a configuration of csi-model"
        raise InvalidRequestError(msg)
    return parse(text, where=str(path))


def parse(text: bytes | str, *, where: str) -> Config:
    """Validate a configuration's text; an empty one means all defaults. ``where`` is what messages call it.

    Raises:
        InvalidRequestError: as ``load``.
    """
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        msg = f"{where} is not valid YAML: {error}"
        raise InvalidRequestError(msg) from error
    try:
        return Config.model_validate({} if document is None else document, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = "".join(f"\n  {_problem(detail)}" for detail in error.errors(include_url=False, include_context=False))
        msg = f"{where} is not a configuration of csi-model; docs/configuration.md lists the keys:{problems}"
        raise InvalidRequestError(msg) from error


def _problem(detail: ErrorDetails) -> str:
    location = detail["loc"]
    path = ".".join(str(part) for part in location) or "(the whole file)"
    if detail["type"] != "extra_forbidden":
        return f"{path}: {detail['msg'].removeprefix('Value error, ')}"
    close = difflib.get_close_matches(str(location[-1]), _keys_at(location[:-1]), n=1)
    return f"{path}: unknown key" + (f"; did you mean {close[0]}?" if close else "")


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at ``location`` has."""
    section: Any = Config
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = next(field.annotation for field in section.model_fields.values() if field.alias == part)
        else:
            # A mapping from names to sections: the part is one of the names.
            section = get_args(section)[-1]
    return [field.alias or name for name, field in section.model_fields.items()]
