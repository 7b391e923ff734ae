"""Locations of OCI layouts: ``oci-layout:///directory`` and ``oci-layout+SCHEME://authority/path`` for any fsspec filesystem.

A location has one spelling, so that a prefix allows what it says and nothing else: no ``.`` or ``..``, no empty component, no escapes,
no query, no user name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from csi_model.errors import InvalidRequestError

_URL = re.compile(r"oci-layout(?:\+(?P<scheme>[a-z][a-z0-9.+-]*))?://(?P<authority>[^/]*)(?P<path>/.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"[A-Za-z0-9._-]*(?::[0-9]{1,5})?")
_FORBIDDEN = re.compile(r"[%?#\\\x00-\x1f\x7f]")
_LOCAL = {None, "file", "local"}


@dataclass(frozen=True, slots=True)
class LayoutLocation:
    """A directory that holds an OCI layout: a filesystem, the authority within it (a bucket or host) and a path."""

    scheme: str
    authority: str
    components: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a location without tag or digest.

        Raises:
            InvalidRequestError: not a layout URL, or one that could be spelled in another way. The URL is not quoted whole, for it may
                hold a secret.
        """
        match = _URL.fullmatch(text)
        if not match:
            msg = "an OCI layout is written oci-layout:///absolute/directory[:tag] or oci-layout+SCHEME://bucket/directory[:tag]"
            raise InvalidRequestError(msg)
        authority, path = match["authority"], match["path"] or ""
        local = match["scheme"] in _LOCAL
        if local and authority:
            msg = "a local OCI layout is named by its absolute path, with three slashes: oci-layout:///srv/models/tiny"
            raise InvalidRequestError(msg)
        if not _AUTHORITY.fullmatch(authority) or _FORBIDDEN.search(path):
            msg = (
                "an OCI layout's URL holds no user name, query, fragment, percent escape, backslash or control character;"
                " credentials belong in the filesystem's own configuration"
            )
            raise InvalidRequestError(msg)
        components = tuple(path.removeprefix("/").removesuffix("/").split("/")) if path not in {"", "/"} else ()
        if any(component in {"", ".", ".."} for component in components):
            msg = "the path of an OCI layout has no empty, '.' or '..' component"
            raise InvalidRequestError(msg)
        return cls("file" if local else match["scheme"], authority, components)

    @property
    def url(self) -> str:
        """The URL that fsspec opens."""
        return f"{self.scheme}://{self.authority}{self._path}"

    def is_below(self, prefix: LayoutLocation) -> bool:
        """Whether this is ``prefix`` or a directory below it."""
        same = (self.scheme, self.authority) == (prefix.scheme, prefix.authority)
        return same and self.components[: len(prefix.components)] == prefix.components

    @property
    def _path(self) -> str:
        return "/" + "/".join(self.components)

    def __str__(self) -> str:
        filesystem = "" if self.scheme == "file" else f"+{self.scheme}"
        return f"oci-layout{filesystem}://{self.authority}{self._path}"
