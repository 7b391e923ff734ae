"""Descriptors: what a blob is, its digest and its size (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.oci.platform import Platform

_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A media type, a digest and a size in bytes, with what was said about them.

    ``data`` holds embedded content and is to be verified like any blob. ``name`` is the field that Ollama adds to its layers.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    artifact_type: str | None = None
    platform: Platform | None = None
    data: bytes | None = None
    name: str | None = None

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """Read a descriptor out of parsed JSON; ``where`` names it in errors, for example ``layers[3]``.

        Raises:
            InvalidRequestError: a field is missing, of the wrong type or out of range.
        """
        if not isinstance(value, Mapping):
            msg = f"{where} is not a descriptor but {type(value).__name__}"
            raise InvalidRequestError(msg)
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
            msg = f"{where} has no valid size (a whole number of bytes)"
            raise InvalidRequestError(msg)
        media_type = _text(value, "mediaType", where)
        if not media_type:
            msg = f"{where} has no mediaType"
            raise InvalidRequestError(msg)
        try:
            digest = Digest.parse(value.get("digest"))
        except InvalidRequestError as error:
            msg = f"the digest of {where} is not valid: {error}"
            raise InvalidRequestError(msg) from error
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            annotations=parse_annotations(value.get("annotations"), where),
            artifact_type=_text(value, "artifactType", where) or None,
            platform=Platform.parse(value["platform"], where) if value.get("platform") is not None else None,
            data=_data(_text(value, "data", where), where),
            name=_text(value, "name", where),
        )


def parse_annotations(value: object, where: str) -> Mapping[str, str]:
    """Read a map of strings to strings; a missing one is empty.

    Raises:
        InvalidRequestError: not such a map.
    """
    if value is None:
        return MappingProxyType({})
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        msg = f"the annotations of {where} are not a map of strings"
        raise InvalidRequestError(msg)
    return MappingProxyType(dict(value))


def _text(value: Mapping[str, object], key: str, where: str) -> str | None:
    text = value.get(key)
    if text is None or isinstance(text, str):
        return text
    msg = f"{key} of {where} is not a string"
    raise InvalidRequestError(msg)


def _data(text: str | None, where: str) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        msg = f"data of {where} is not base64"
        raise InvalidRequestError(msg) from error
