"""Notes: what is to be said about a pod or about this node, before it is an event of the API. Values only."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_MAX_BYTES = 1024
"""The API's limit for an event's text."""
_QUERY = re.compile(r"(\w+://[^\s?]*)\?\S*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Kind(enum.Enum):
    """The API's two types of event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that a note is about, as the API identifies it; a node has no namespace."""

    kind: str
    name: str
    uid: str
    namespace: str = ""

    @classmethod
    def node(cls, name: str) -> Subject:
        """A node; kubelet, too, gives its name for its uid in events, and ``kubectl describe node`` looks for that."""
        return cls(kind="Node", name=name, uid=name)


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to say; ``message`` is for a person.

    Notes about one object that share reason and topic are one event, which happens again: the newest message is shown.
    """

    about: Subject
    kind: Kind
    reason: str
    message: str
    topic: str = ""

    @property
    def key(self) -> tuple[Subject, str, str]:
        """Equal for notes that are one event."""
        return (self.about, self.reason, self.topic)


def without_numbers(text: str) -> str:
    """The text with every number blanked, so that two that differ in bytes or seconds only are equal."""
    return _NUMBER.sub("0", text)


def presentable(text: str) -> str:
    """The text as an event may show it: one line, at most 1 KiB, and of a URL nothing behind its "?", which may be a signature."""
    line = _UNPRINTABLE.sub(" ", _QUERY.sub(r"\1", text)).strip()
    encoded = line.encode("utf-8", "replace")
    return line if len(encoded) <= _MAX_BYTES else encoded[: _MAX_BYTES - len("…".encode())].decode("utf-8", "ignore") + "…"
