"""Glob patterns over paths inside a view, matched in time linear in the path for each ``*`` of the pattern.

``*`` and ``?`` stay within a component, ``[…]`` is one character of a set (``[!…]`` or ``[^…]``: none of it), ``**`` standing alone
between slashes is any number of components. A pattern without a slash matches the last component at any depth; one with a slash
matches the whole path (a leading slash anchors a single name so). There is no escape: write ``[*]`` for a star.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATTERN = 1024


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern: runs of components, with any number of components between two runs.

    An unanchored one has a run of one and may match the last component wherever it stands.
    """

    runs: tuple[tuple[re.Pattern[str], ...], ...]
    anchored: bool

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether the whole path matches."""
        if not parts:
            return False
        if not self.anchored:
            return self.runs[0][0].fullmatch(parts[-1]) is not None
        first, *middle = self.runs
        if not middle:
            return len(parts) == len(first) and _fits(first, parts, 0)
        *middle, last = middle
        end = len(parts) - len(last)
        at = len(first)
        if end < at or not _fits(first, parts, 0) or not _fits(last, parts, end):
            return False
        # The leftmost fit leaves most room for what follows, so it need never be reconsidered.
        for run in middle:
            while at + len(run) <= end and not _fits(run, parts, at):
                at += 1
            at += len(run)
            if at > end:
                return False
        return True


@functools.lru_cache(maxsize=1024)
def compile_glob(pattern: str) -> Glob:
    """Compile a pattern.

    Raises:
        InvalidRequestError: too long, empty, climbing, with ``**`` inside a component or an unfinished or backward ``[``.
    """
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_PATTERN:
        msg = f"the pattern {pattern[:40]!r}… is longer than {MAX_PATTERN} bytes"
        raise InvalidRequestError(msg)
    components = pattern.strip("/").split("/")
    if any(component in ("", ".", "..") for component in components) or "\0" in pattern:
        msg = f"the pattern {pattern!r} has an empty, '.' or '..' component"
        raise InvalidRequestError(msg)
    runs: list[tuple[re.Pattern[str], ...]] = []
    run: list[re.Pattern[str]] = []
    for component in components:
        if component == "**":
            runs.append(tuple(run))
            run = []
        else:
            run.append(re.compile(_translate(component, pattern), re.DOTALL))
    runs.append(tuple(run))
    return Glob(tuple(runs), anchored=pattern.startswith("/") or len(components) > 1 or len(runs) > 1)


def _fits(run: Sequence[re.Pattern[str]], parts: Sequence[str], at: int) -> bool:
    return all(component.fullmatch(parts[at + i]) for i, component in enumerate(run))


def _translate(component: str, pattern: str) -> str:
    """A regular expression of one component; each star takes the shortest way to the next literal and never tries another."""
    if "**" in component:
        msg = f"in the pattern {pattern!r}, '**' must stand alone between slashes"
        raise InvalidRequestError(msg)
    pieces = [""]
    at = 0
    while at < len(component):
        character = component[at]
        at += 1
        if character == "*":
            pieces.append("")
        elif character == "?":
            pieces[-1] += "."
        elif character == "[":
            expression, at = _character_set(component, at, pattern)
            pieces[-1] += expression
        else:
            pieces[-1] += re.escape(character)
    head, *rest = pieces
    if not rest:
        return head
    *middle, tail = rest
    # An atomic group forbids backtracking, which would cost exponential time and could not find more.
    return head + "".join(f"(?>.*?{piece})" for piece in middle) + ".*" + tail


def _character_set(component: str, at: int, pattern: str) -> tuple[str, int]:
    start = at
    negated = component[at : at + 1] in ("!", "^")
    start += negated
    # A bracket that comes first is a member.
    end = component.find("]", start + 1)
    if end < 0:
        msg = f"in the pattern {pattern!r}, a '[' is not closed"
        raise InvalidRequestError(msg)
    members = component[start:end]
    expression = ""
    at = 0
    while at < len(members):
        low = high = members[at]
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            high = members[at + 2]
            at += 2
        at += 1
        if low > high:
            msg = f"in the pattern {pattern!r}, the range {low}-{high} runs backwards"
            raise InvalidRequestError(msg)
        expression += f"{re.escape(low)}-{re.escape(high)}"
    return f"[{'^' if negated else ''}{expression}]", end + 1
