"""References: where a model is, in a registry or in an OCI layout.

The grammar is distribution/reference's, with Docker Hub's short names; a digest is parsed strictly, and wins over a tag beside it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.oci.layouturl import LayoutLocation

MAX_REFERENCE = 4096
_MAX_REPOSITORY = 255
_HUB = "docker.io"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<address>[0-9A-Fa-f:]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LAYOUT_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_USER = re.compile(r"://.*@(?!sha(?:256|512):)", re.DOTALL)
_BARE_ID = re.compile(r"(?:sha256:)?[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A manifest in a registry; at least one of ``tag`` and ``digest`` is given. ``str()`` is canonical and parses to an equal value."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def host(self) -> str:
        """Where the registry's API answers, with its port where it has one."""
        return "registry-1.docker.io" if self.registry == _HUB else self.registry

    @property
    def name(self) -> str:
        """Registry and repository: what credentials are looked up by."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return self.name + _suffix(self.tag, self.digest)


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """A manifest in an OCI layout. Without tag and digest it is the layout's only one, or the one tagged ``latest``.

    ``url`` is the layout's directory as fsspec opens it, such as ``file:///srv/models/tiny`` or ``s3://bucket/tiny``.
    """

    url: str
    tag: str | None
    digest: Digest | None

    def is_below(self, prefix: str) -> bool:
        """Whether the layout is the directory ``prefix`` (``oci-layout:///srv/models/``) or lies below it, by whole path components.

        Names are compared, not files: that a directory below the prefix is no symbolic link out of it is the business of whoever
        writes there.

        Raises:
            InvalidRequestError: the prefix is not a layout URL.
        """
        return LayoutLocation.parse(f"oci-layout+{self.url}").is_below(LayoutLocation.parse(prefix))

    def __str__(self) -> str:
        return f"{LayoutLocation.parse(f'oci-layout+{self.url}')}{_suffix(self.tag, self.digest)}"


AnyReference = Reference | LayoutReference


@functools.lru_cache(maxsize=1024)  # one publish asks for its reference several times
def parse_reference(text: str) -> AnyReference:
    """Parse what a person or a volume attribute says.

    ``registry/repository[:tag][@digest]``, with or without ``oci://`` before it, or ``oci-layout:///directory[:tag][@digest]`` or
    ``oci-layout+SCHEME://…``.

    Raises:
        InvalidRequestError: it is none of these; the message says what was expected.
    """
    if not text or len(text) > MAX_REFERENCE or not text.isascii() or not text.isprintable() or " " in text:
        msg = f"{_without_secrets(text)[:80]!r} is not a reference: expected 1 to {MAX_REFERENCE} printable ASCII characters and no spaces"
        raise InvalidRequestError(msg)
    if "?" in text:
        raise _refused(text, "a reference has no query; what follows the '?' is not repeated here, for it may be a signature")
    if text.lower().startswith("oci-layout") and "://" in text:
        return _parse_layout(text)
    bare = text.removeprefix("oci://")
    if "://" in bare:
        scheme = bare.partition("://")[0]
        raise _refused(text, f"{scheme}:// is not supported; write registry/repository:tag, oci://… or oci-layout://…")
    return _parse_registry(bare)


def _parse_registry(text: str) -> Reference:
    if _BARE_ID.fullmatch(text):
        raise _refused(text, "a digest alone does not say where the model is; write registry/repository@sha256:…")
    rest, digest = _split_digest(text)
    head, slash, path = rest.rpartition("/")
    last, colon, tag = path.partition(":")
    name = head + slash + last
    if colon and not _TAG.fullmatch(tag):
        raise _refused(text, "a tag has 1 to 128 letters, digits, '_', '.' or '-', and starts with none of the last two")
    registry, repository = _split_registry(name)
    _check_registry(text, registry)
    _check_repository(text, repository)
    if not colon and digest is None:
        tag = "latest"
    return Reference(registry, repository, tag or None, digest)


def _split_registry(name: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host when it has a dot, a colon or a capital, or is localhost; else this is Docker Hub."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        registry, repository = first, rest
    else:
        registry, repository = _HUB, name
    if registry == "index.docker.io":
        registry = _HUB
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check_registry(text: str, registry: str) -> None:
    if not _is_registry(registry):
        raise _refused(text, f"{registry[:80]!r} is not a registry host; expected a name or address and perhaps a port")


def _is_registry(registry: str) -> bool:
    match = _REGISTRY.fullmatch(registry)
    if not match or len(registry) > 260:
        return False
    try:
        if match["address"] is not None:
            ipaddress.IPv6Address(match["address"])
    except ValueError:
        return False
    return match["port"] is None or 0 < int(match["port"]) < 2**16


def _check_repository(text: str, repository: str) -> None:
    if repository != repository.lower():
        raise _refused(text, f"the repository {repository[:80]!r} has capitals; repositories are lower-case")
    if len(repository) > _MAX_REPOSITORY:
        raise _refused(text, f"the repository has {len(repository)} characters; at most {_MAX_REPOSITORY} are allowed")
    if not all(_COMPONENT.fullmatch(component) for component in repository.split("/")):
        raise _refused(text, f"{repository[:80]!r} is not a repository; expected lower-case names joined by '/', such as llm/tiny")


def _parse_layout(text: str) -> LayoutReference:
    if "::" in text:
        raise _refused(text, "chains of filesystems (::) are not allowed; name the layout's own directory")
    # A tag follows the last slash of the path; colons before the path belong to the scheme and the port.
    path = text.find("/", text.index("://") + 3)
    cut = text.rfind("/") + 1 if path >= 0 else len(text)
    last, digest = _split_digest(text[cut:])
    directory, colon, tag = last.rpartition(":") if ":" in last else (last, "", "")
    if colon and not _LAYOUT_TAG.fullmatch(tag):
        raise _refused(text, "a layout's tag has 1 to 128 letters, digits, '_', '.', '+' or '-', and starts with a letter, digit or '_'")
    return LayoutReference(LayoutLocation.parse(text[:cut] + directory).url, tag or None, digest)


def _split_digest(text: str) -> tuple[str, Digest | None]:
    rest, at, digest = text.partition("@")
    if not at:
        return rest, None
    try:
        return rest, Digest.parse(digest)
    except InvalidRequestError:
        # Not repeated: what stands around an '@' by mistake is often a password.
        msg = "what follows the reference's '@' is not a digest; expected sha256:<64 lower-case hex digits>"
        raise InvalidRequestError(msg) from None


def _suffix(tag: str | None, digest: Digest | None) -> str:
    return (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _refused(text: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_without_secrets(text)[:200]!r} is not a reference: {why}")


def _without_secrets(text: str) -> str:
    """The text without what a pasted URL may hold: a password before the host, a signature in the query."""
    return _USER.sub("://…@", text.partition("?")[0])
