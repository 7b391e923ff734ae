"""The kernel's list of mounts (/proc/self/mountinfo), parsed. Format: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line: which part (``root``) of which filesystem (``device``, major and minor) is seen where, and how.

    ``options`` belong to this mount, ``super_options`` to the filesystem. ``propagation`` holds the optional fields, such as
    ``shared:7`` or ``master:1``; a private mount has none. Paths are as the kernel shows them from our root, unescaped.
    """

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]
    filesystem: str
    source: str
    super_options: frozenset[str]

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Parse one line; ``ValueError`` when it is not one."""
        before, separator, after = line.strip(b"\n").partition(b" - ")
        fields, tail = before.split(b" "), after.split(b" ", 2)
        if not separator or len(fields) < 6 or len(tail) != 3:
            msg = f"not a line of mountinfo: {line[:200]!r}"
            raise ValueError(msg)
        major, _, minor = fields[2].partition(b":")
        return cls(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=(int(major), int(minor)),
            root=_unescaped(fields[3]),
            target=_unescaped(fields[4]),
            options=_options(fields[5]),
            propagation=tuple(field.decode() for field in fields[6:]),
            filesystem=_unescaped(tail[0]),
            source=_unescaped(tail[1]),
            super_options=_options(tail[2]),
        )


def read_mounts(path: Path = _MOUNTINFO) -> tuple[Mount, ...]:
    """All mounts that this process sees, in the kernel's order: among those at one target the last is on top."""
    return parse_mounts(path.read_bytes())


def parse_mounts(data: bytes) -> tuple[Mount, ...]:
    """The mounts of a whole mountinfo file."""
    return tuple(Mount.parse(line) for line in data.split(b"\n") if line)


def mounts_at(target: Path | str) -> tuple[Mount, ...]:
    """The mounts stacked exactly at ``target`` (absolute, no symlinks in it), lowest first.

    Only lines that name the target are parsed, so that hundreds of mounts cost microseconds.
    """
    wanted = _escaped(str(target))
    return tuple(
        Mount.parse(line) for line in _MOUNTINFO.read_bytes().split(b"\n") if b" " + wanted + b" " in line and _is_at(line, wanted)
    )


def _is_at(line: bytes, wanted: bytes) -> bool:
    return line.split(b" ", 5)[4] == wanted


def _options(field: bytes) -> frozenset[str]:
    return frozenset(_unescaped(option) for option in field.split(b","))


def _unescaped(field: bytes) -> str:
    # Space, tab, newline, backslash and (in some kernels) '#' come as octal. surrogateescape: names need not be UTF-8.
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), field).decode(errors="surrogateescape")


def _escaped(target: str) -> bytes:
    encoded = target.encode(errors="surrogateescape")
    return re.sub(rb"[ \t\n\\]", lambda match: b"\\%03o" % ord(match[0]), encoded)
