"""What a volume asks for: the attributes of a CSI volume, parsed."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from csi_model.errors import InvalidRequestError
from csi_model.oci.reference import parse_reference
from csi_model.tree.view import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.oci.reference import AnyReference

ATTRIBUTES = ("reference", "pullPolicy", "path", "include", "exclude")
_SEPARATORS = re.compile(r"[,\n]")


class PullPolicy(enum.Enum):
    """When the registry is asked what a reference names; the values are Kubernetes' own."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A reference, which part of it to show, and when to ask for it anew."""

    reference: AnyReference
    selection: Selection
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT

    @classmethod
    def parse(cls, attributes: Mapping[str, str]) -> Self:
        """Read a volume's own attributes; ``include`` and ``exclude`` are globs separated by commas or line ends.

        Raises:
            InvalidRequestError: an unknown attribute (named), no reference, or a value that does not parse.
        """
        unknown = sorted(set(attributes) - set(ATTRIBUTES))
        if unknown:
            msg = f"unknown volume attribute {', '.join(map(repr, unknown))}; known are {', '.join(ATTRIBUTES)}"
            raise InvalidRequestError(msg)
        if not attributes.get("reference"):
            msg = "volume attribute 'reference' is missing; name what to mount, for example reference: registry.example/llm/tiny:v1"
            raise InvalidRequestError(msg)
        return cls(
            reference=parse_reference(attributes["reference"]),
            selection=Selection.parse(
                path=attributes.get("path", ""),
                include=_globs(attributes.get("include", "")),
                exclude=_globs(attributes.get("exclude", "")),
            ),
            pull_policy=_policy(attributes.get("pullPolicy", PullPolicy.IF_NOT_PRESENT.value)),
        )


def _globs(text: str) -> tuple[str, ...]:
    return tuple(glob.strip() for glob in _SEPARATORS.split(text) if glob.strip())


def _policy(text: str) -> PullPolicy:
    try:
        return PullPolicy(text)
    except ValueError as error:
        msg = f"pullPolicy {text!r} is not one of {', '.join(policy.value for policy in PullPolicy)}"
        raise InvalidRequestError(msg) from error
