"""Credentials out of pull secrets and Docker config files, matched to references as kubelet matches them.

Rules and their order: kubernetes/kubernetes, pkg/credentialprovider (keyring.go, config.go). Helpers and stores are programs that a
config file names; they are not run. Keys are split by hand: urllib takes a glob's brackets for an IPv6 address.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import structlog

from csi_model.errors import InvalidRequestError
from csi_model.oci.document import parse_json
from csi_model.registry.problems import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from csi_model.oci.reference import Reference

log = structlog.get_logger(__name__)

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?P<name>[^:\s]+))(?::(?P<port>[0-9]*))?")
"""Brackets with a colon in them hold an IPv6 address; others are a glob's."""
_VERSION_PATH = re.compile(r"/v[12](?=/|$)")
_HUB_FALLBACK = "index.docker.io"
_MAX_FILE = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, or an ``identity_token`` for a registry's token server. Neither is ever shown."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = field(default="the volume's secret", compare=False)
    """Where it came from, for messages."""

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return f"{f'user {self.username[:80]!r}' if self.username else 'an identity token'} from {self.origin}"


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    port: str
    path: str
    credential: Credential

    @property
    def order(self) -> str:
        """What kubelet sorts keys by, in reverse."""
        return f"{self.host}{f':{self.port}' if self.port else ''}{self.path}"

    def matches(self, host: str, port: str, path: str) -> bool:
        """Kubelet's rule: equal ports, as many labels and each of them globbed, and a plain string prefix of the path."""
        ours, theirs = self.host.split("."), host.split(".")
        return (
            self.port == port
            and len(ours) == len(theirs)
            and all(fnmatch.fnmatchcase(label, _pattern(glob)) for glob, label in zip(ours, theirs, strict=True))
            and path.startswith(self.path)
        )


@dataclass(frozen=True, slots=True)
class Keyring:
    """Credentials by where they may go."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def parse_secret(cls, data: Mapping[str, str]) -> Self:
        """Read a pull secret's data: ``.dockerconfigjson`` or ``.dockercfg``; no data gives an empty keyring.

        Keys that Kubernetes adds by itself, such as service account tokens, are left alone.

        Raises:
            InvalidRequestError: other keys, or content that is not what the key says. The content is never quoted.
        """
        data = {key: value for key, value in data.items() if "k8s.io/" not in key}
        if not data:
            return cls()
        known = {".dockerconfigjson": "auths", ".dockercfg": None}
        present = [key for key in known if key in data]
        if not present:
            msg = "the volume's secret holds no pull credentials; make it with: kubectl create secret docker-registry"
            raise InvalidRequestError(msg)
        entries: list[_Entry] = []
        for key in present:
            document = _parse(data[key].encode(), f"{key} of the volume's secret")
            section = known[key]
            auths = document.get(section, {}) if section else document
            entries += _read_auths(auths, f"{key} of the volume's secret", origin="the volume's secret")
        return cls(tuple(entries))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a Docker config file; its ``auths`` may hold identity tokens. Credential helpers are ignored with a warning.

        Raises:
            InvalidRequestError: unreadable, or not such a file.
        """
        try:
            with path.open("rb") as file:
                body = file.read(_MAX_FILE + 1)
        except OSError as error:
            msg = f"the credentials file {path} cannot be read: {error.strerror}"
            raise InvalidRequestError(msg) from error
        document = _parse(body, f"the credentials file {path}")
        ignored = sorted({"credsStore", "credHelpers"} & document.keys())
        if ignored:
            log.warning("credential helpers are not supported", file=str(path), ignored=ignored)
        auths = document.get("auths", {})
        return cls(tuple(_read_auths(auths, f"auths of {path}", origin=str(path), identity_tokens=True)))

    def matching(self, reference: Reference) -> tuple[Credential, ...]:
        """Every credential that may be sent for ``reference``, the best match first and none twice."""
        host, port = _split_host(reference.registry) or ("", "")
        # Sorting is stable: entries of one key stay in the order in which they were given.
        ordered = sorted(self.entries, key=lambda entry: entry.order, reverse=True)
        path = f"/{reference.repository}"
        found = [entry.credential for entry in ordered if entry.matches(host, port, path)]
        if not found and host == "docker.io":
            found = [entry.credential for entry in ordered if entry.order == _HUB_FALLBACK]
        return tuple(dict.fromkeys(found))


def _parse(body: bytes, where: str) -> dict[str, object]:
    try:
        return parse_json(body, where)
    except InvalidRequestError:
        msg = f"{where} is not strict JSON"
        # Without the cause: it may quote what it stumbled over, and that may be a password.
        raise InvalidRequestError(msg) from None


def _read_auths(auths: object, where: str, *, origin: str, identity_tokens: bool = False) -> list[_Entry]:
    if not isinstance(auths, dict):
        msg = f"{where} is not a map of registries"
        raise InvalidRequestError(msg)
    entries = []
    for key, value in auths.items():
        if not isinstance(value, dict):
            msg = f"{where}: an entry is not a map"
            raise InvalidRequestError(msg)
        credential = _read_credential(value, where, origin=origin, identity_tokens=identity_tokens)
        if credential:
            entry = _entry(key, credential)
            if entry:
                entries.append(entry)
            else:
                # As kubelet does: the other entries are as good as without it.
                log.warning("a key of the pull credentials names no registry; its entry is ignored", key=_shown(key), where=where)
    return entries


def _read_credential(value: Mapping[str, object], where: str, *, origin: str, identity_tokens: bool) -> Credential | None:
    fields = {name: value.get(name) or "" for name in ("username", "password", "auth", "identitytoken")}
    username, password, auth, token = (str(fields[name]) for name in ("username", "password", "auth", "identitytoken"))
    if not all(isinstance(text, str) for text in fields.values()):
        msg = f"{where}: a field is not a string"
        raise InvalidRequestError(msg)
    if auth:
        username, password = _split_auth(auth, where)
    if not identity_tokens:
        token = ""
    if not username and not password and not token:
        return None
    return Credential(username, password, token, origin)


def _split_auth(auth: str, where: str) -> tuple[str, str]:
    text = auth.strip()
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    username, colon, password = decoded.partition(":")
    if not colon:
        msg = f"{where}: auth is not base64 of user:password"
        # Without the cause, which holds the text.
        raise InvalidRequestError(msg) from None
    return username, password


def _entry(key: str, credential: Credential) -> _Entry | None:
    bare = _SCHEME.sub("", re.split(r"[?#]", key, maxsplit=1)[0], count=1)
    authority, slash, rest = bare.partition("/")
    split = _split_host(authority.rpartition("@")[2])
    if split is None:
        return None
    path = slash + rest
    path = _VERSION_PATH.sub("", path, count=1) if _VERSION_PATH.match(path) else path
    return _Entry(*split, "" if path == "/" else path, credential)


def _split_host(text: str) -> tuple[str, str] | None:
    """Host, without brackets and in lower case, and port, empty where there is none; None when it is not a host."""
    match = _HOST.fullmatch(text)
    return ((match["address"] or match["name"]).lower(), match["port"] or "") if match else None


def _pattern(glob: str) -> str:
    """The glob as fnmatch writes it: what Go negates with '^', it negates with '!', which to Go is a character like others."""
    return glob.replace("[!", "[\\!").replace("[^", "[!")


def _shown(key: str) -> str:
    """The key without what may be a password before its host, or a signature after it."""
    return one_line(re.split(r"[?#]", key, maxsplit=1)[0].rpartition("@")[2], 120)
