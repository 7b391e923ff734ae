"""What layer annotations say of a file: its path and whether it is executable. Nothing in them is trusted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from csi_model.errors import InvalidRequestError
from csi_model.oci.document import parse_json

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor

TITLE: Final = "org.opencontainers.image.title"
FILE_PATHS: Final = ("org.cncf.model.filepath", "org.cnai.model.filepath")
_FILE_METADATA = ("org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json", "org.cnai.model.file.metadata")
"""The last is how model-spec v0.0.4 spelled it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_NAME = 255
_MAX_PATH = 4096


def file_path(layer: Descriptor, where: str) -> str | None:
    """Where the file lands, checked: ModelPack's annotation before the older spelling of it, and that before the title.

    Raises:
        InvalidRequestError: the path is not a safe relative one.
    """
    for key in (*FILE_PATHS, TITLE):
        text = layer.annotations.get(key)
        if text:
            return check_path(text, f"{key} of {where}")
    return None


def check_path(text: str, where: str) -> str:
    """A relative path of plain components, as it was given.

    Raises:
        InvalidRequestError: absolute, with an empty, ``.`` or ``..`` component, a backslash, a control character, or too long.
    """
    components = text.split("/")
    if any(component in {"", ".", ".."} for component in components):
        why = "it has to be relative, with no empty, '.' or '..' component"
    elif "\\" in text or _CONTROL.search(text):
        why = "it holds a backslash or a control character"
    elif len(text.encode()) > _MAX_PATH or any(len(component.encode()) > _MAX_NAME for component in components):
        why = f"a name has at most {_MAX_NAME} bytes and a path {_MAX_PATH}"
    else:
        return text
    msg = f"{where} is the path {text[:200]!r}, which is refused: {why}"
    raise InvalidRequestError(msg)


def file_mode(layer: Descriptor, where: str) -> int:
    """0555 when the layer's file metadata has an executable bit, else 0444.

    Only that much is taken over: owners mean nothing on another machine, and tools disagree on the rest (``typeflag``).

    Raises:
        InvalidRequestError: the metadata is not a JSON object, or its mode no number.
    """
    text = next((layer.annotations[key] for key in _FILE_METADATA if layer.annotations.get(key)), None)
    if text is None:
        return 0o444
    mode = parse_json(text.encode(), f"the file metadata of {where}").get("mode")
    if mode is not None and (not isinstance(mode, int) or isinstance(mode, bool)):
        msg = f"mode in the file metadata of {where} is not a number"
        raise InvalidRequestError(msg)
    return 0o555 if mode is not None and mode & 0o111 else 0o444
