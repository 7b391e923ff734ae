"""Platforms, and which entry of an index is for this node.

The names are Go's (GOOS, GOARCH); spelling variants are folded as containerd's ``platforms`` package does.
"""

from __future__ import annotations

import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from csi_model.errors import InvalidRequestError, NotFoundError
from csi_model.oci import mediatypes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.oci.descriptor import Descriptor

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "loongarch64": "loong64",
}
_UNKNOWN = "unknown"
_BUILDKIT_TYPE = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor, normalised: ``x86_64`` is ``amd64``, ``arm64/v8`` is ``arm64``."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """Read a platform object; ``where`` names its owner in errors. A missing system or architecture reads as ``unknown``.

        Raises:
            InvalidRequestError: not an object, or a field that is no string.
        """
        if not isinstance(value, Mapping):
            msg = f"the platform of {where} is not an object"
            raise InvalidRequestError(msg)
        fields = (value.get(key) for key in ("os", "architecture", "variant", "os.version"))
        os, architecture, variant, os_version = (_text(field, where) for field in fields)
        features = value.get("os.features")
        if features is not None and not isinstance(features, list):
            msg = f"os.features of the platform of {where} is not a list"
            raise InvalidRequestError(msg)
        named = tuple(_text(feature, where) or "" for feature in features or ())
        return cls.of(os or _UNKNOWN, architecture or _UNKNOWN, variant, os_version=os_version, os_features=named)

    @classmethod
    def of(
        cls, os: str, architecture: str, variant: str | None = None, *, os_version: str | None = None, os_features: tuple[str, ...] = ()
    ) -> Self:
        """The platform in its normal spelling."""
        os, architecture, variant = os.lower(), architecture.lower(), (variant or "").lower()
        if architecture.startswith("armv") and architecture[4:5].isdigit():  # what uname says: armv7l, armv6l
            architecture, variant = "arm", variant or architecture[4]
        elif architecture == "armel":
            variant = variant or "6"
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if variant[:1].isdigit():
            variant = f"v{variant}"
        if architecture == "arm":
            variant = variant or "v7"
        elif (architecture, variant) in {("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0")}:
            variant = ""
        return cls(os, architecture, variant or None, os_version, os_features)

    @classmethod
    def host(cls) -> Self:
        """The platform of this machine."""
        return cls.of("linux", machine.machine())

    @property
    def known(self) -> bool:
        """Whether it names a system and an architecture."""
        return _UNKNOWN not in (self.os, self.architecture)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def choose(platform: Platform, entries: Sequence[Descriptor]) -> Descriptor:
    """The entry of an index that is for ``platform``; it may be an index again.

    Attestations are passed over, as are entries of unknown types and, beside images, artifacts (SOCI puts its index there). The best
    variant wins, then the first entry. An entry without a platform is taken when nothing matches and it is the only one such.

    Raises:
        NotFoundError: no entry is for the platform, or several could be.
    """
    eligible = _eligible(entries)
    for acceptable in _downward(platform):
        for entry in eligible:
            offered = entry.platform
            if offered is not None and (offered.os, offered.architecture, offered.variant) == acceptable:
                return entry
    bare = [entry for entry in eligible if entry.platform is None or not entry.platform.known]
    if len(bare) == 1:
        return bare[0]
    if bare:
        msg = f"the index lists {len(bare)} manifests without a platform; name one by digest, for example @{bare[0].digest}"
        raise NotFoundError(msg)
    offers = ", ".join(sorted({str(entry.platform) for entry in eligible})) or "no manifest at all"
    msg = f"the index has nothing for {platform}; it offers {offers}"
    raise NotFoundError(msg)


def _eligible(entries: Sequence[Descriptor]) -> list[Descriptor]:
    listed = [
        entry
        for entry in entries
        if entry.media_type in mediatypes.MANIFESTS | mediatypes.INDEXES and entry.annotations.get(_BUILDKIT_TYPE) != "attestation-manifest"
    ]
    images = [entry for entry in listed if entry.artifact_type is None or entry.artifact_type in mediatypes.IMAGE_CONFIGS]
    return images or listed


def _downward(platform: Platform) -> list[tuple[str, str, str | None]]:
    """What runs on ``platform``, best first: a processor of variant v3 takes v2 as well."""
    variants: list[str | None] = [platform.variant]
    number = (platform.variant or "").removeprefix("v").partition(".")[0]
    if number.isascii() and number.isdigit() and len(number) <= 2:
        lowest = {"arm": 5, "arm64": 9, "amd64": 2}.get(platform.architecture, int(number))
        variants += [f"v{n}" for n in range(int(number), lowest - 1, -1)]
    if platform.architecture != "arm":
        variants.append(None)  # plain amd64 and arm64 are the lowest of their kind
    return [(platform.os, platform.architecture, variant) for variant in dict.fromkeys(variants)]


def _text(value: object, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    msg = f"the platform of {where} holds something that is not a string"
    raise InvalidRequestError(msg)
