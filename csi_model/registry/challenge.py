"""WWW-Authenticate: what a registry asks for (RFC 9110, section 11.6.1).

One header may hold several challenges, whose own parameters are separated by commas too; so this is a small scanner, not a split.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATOR = re.compile(r"[\s,]+")
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))(?=\s*(?:,|$))')
_SCHEME = re.compile(rf"({_WORD})(?:\s+|(?=,)|$)")
_TOKEN68 = re.compile(r"[0-9A-Za-z._~+/-]+=*\s*(?=,|$)")
_MAX_HEADER = 16 * 1024


@dataclass(frozen=True, slots=True)
class Challenge:
    """A scheme in lower case and its parameters, whose names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all the headers, in order; what cannot be understood ends its header."""
    return tuple(challenge for header in headers for challenge in _scan(header[:_MAX_HEADER]))


def _scan(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = 0
    while position < len(header):
        if match := _SEPARATOR.match(header, position):
            position = match.end()
        elif found and (match := _PARAMETER.match(header, position)):
            quoted, plain = match[2], match[3]
            parameters.setdefault(match[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = match.end()
        elif match := _SCHEME.match(header, position):
            parameters = {}
            found.append(Challenge(match[1].lower(), MappingProxyType(parameters)))
            position = match.end()
            if not _PARAMETER.match(header, position) and (match := _TOKEN68.match(header, position)):
                position = match.end()
        else:
            break
    return found
