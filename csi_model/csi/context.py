"""A volume's context: which keys are the volume's own, and which kubelet and the provisioner add.

Keys under ``kubernetes.io`` and ``k8s.io`` come from the cluster and are ignored unless known here; all others are attributes of
the volume, and an unknown one is refused where they are parsed. What the cluster adds is for logs only, never for decisions about access: a CSIDriver
object without podInfoOnMount lets a pod's author write these keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from csi_model.errors import DeniedError, InvalidRequestError
from csi_model.oci.reference import LayoutReference, parse_reference
from csi_model.volumes.request import VolumeRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CLUSTER_DOMAINS = (".kubernetes.io", ".k8s.io")
_POD = "csi.storage.k8s.io/"
# The specification's limit for a map; what kubelet adds, service-account tokens for one, is not counted.
_MAX_ATTRIBUTES = 4096
_WHO = {
    f"{_POD}pod.namespace": "namespace",
    f"{_POD}pod.name": "pod",
    f"{_POD}pod.uid": "pod_uid",
    f"{_POD}serviceAccount.name": "service_account",
}


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """A volume context taken apart: the volume's own attributes, and whether the volume is written into a pod or claimed by it.

    ``ephemeral`` is None where nobody says so: other callers than kubelet.
    """

    attributes: Mapping[str, str] = field(repr=False)
    ephemeral: bool | None

    @classmethod
    def parse(cls, context: Mapping[str, str]) -> Self:
        """Take a volume context apart; values are not looked into.

        Raises:
            InvalidRequestError: the volume's own attributes are larger than 4 KiB, or one of them has a NUL.
        """
        own = {key: value for key, value in context.items() if not _is_clusters(key)}
        if sum(len(key.encode()) + len(value.encode()) for key, value in own.items()) > _MAX_ATTRIBUTES:
            msg = f"the volume attributes have more than {_MAX_ATTRIBUTES} bytes in all; name fewer globs"
            raise InvalidRequestError(msg)
        for key, value in own.items():
            if "\0" in key or "\0" in value:
                msg = f"volume attribute {key[:64]!r} has a NUL"
                raise InvalidRequestError(msg)
        return cls(
            attributes=own,
            ephemeral=None if (told := context.get(f"{_POD}ephemeral")) is None else told == "true",
        )


def parse_request(attributes: Mapping[str, str], *, layouts: Sequence[str]) -> VolumeRequest:
    """What a volume's own attributes ask for, within what the node's administrator allows.

    ``layouts`` are the URL prefixes below which a volume may name an OCI layout; registries need no such list.

    Raises:
        InvalidRequestError: an attribute is unknown, missing or malformed.
        DeniedError: an OCI layout outside every prefix.
    """
    request = VolumeRequest.parse(attributes)
    reference = request.reference
    if isinstance(reference, LayoutReference) and not any(reference.is_below(prefix) for prefix in layouts):
        msg = f"volumes may not name the OCI layout {reference}; the driver's configuration lists it under no layouts.allowedPrefixes"
        raise DeniedError(msg)
    return request


def who_asks(context: Mapping[str, str]) -> dict[str, str]:
    """The pod that a volume is for, as far as its context tells; however malformed the rest of it is."""
    return {name: context[key] for key, name in _WHO.items() if context.get(key)}


def shown_reference(context: Mapping[str, str]) -> str:
    """The reference in a volume's context as logs and events may show it; empty where there is none that parses.

    A malformed one may be a URL with a password in it, and what follows a "?" may be a signature.
    """
    try:
        return str(parse_reference(context.get("reference", ""))).partition("?")[0]
    except InvalidRequestError:
        return ""


def _is_clusters(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    return bool(slash) and f".{domain}".endswith(_CLUSTER_DOMAINS)
