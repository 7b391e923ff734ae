"""The configuration's JSON schema, from the model: for editors, and for the chart, which refuses a wrong configuration before it installs one.

``python -m csi_model.config.schema`` prints it. It is as strict as the model or stricter: what it accepts, ``load`` accepts, but for rules
that a schema cannot say (a layout prefix with ``..``). It keeps to draft 7 and to patterns without look-around, which every Helm knows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from csi_model.config.model import REGISTRY_NAME, Config


def definitions() -> dict[str, Any]:
    """The schemas of ``Config`` and of its sections by class name; they refer to each other below ``#/definitions/``."""
    whole = Config.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    sections: dict[str, Any] = whole.pop("$defs")
    whole["properties"]["registries"]["propertyNames"] = {"pattern": f"^{REGISTRY_NAME}$"}
    return {name: _plain(section) for name, section in {"Config": whole, **sections}.items()}


def schema() -> dict[str, Any]:
    """The whole file's schema."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/Config", "definitions": definitions()}


def _plain(part: Any) -> Any:
    """Without the titles that pydantic makes out of names, and without formats, which validators know or not."""
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    dropped = {name for name in ("title", "format") if isinstance(part.get(name), str)}
    return {name: _plain(value) for name, value in part.items() if name not in dropped}


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
