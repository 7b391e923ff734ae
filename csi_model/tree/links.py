"""Symbolic links of a subtree that is shown alone: those that lead back into it by way of its outside become relative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.tree.nodes import Directory, Symlink
from csi_model.tree.paths import MAX_PATH, Walker, clean, split

if TYPE_CHECKING:
    from collections.abc import Sequence


def relink(walker: Walker, view: Directory, names: Sequence[bytes]) -> None:
    """Rewrite the links below ``view``, whose path in the walker's tree is ``names``; the others stay as they are.

    A link that is absolute, or climbs above ``view``, and whose target lies in ``view`` once the image's own links are followed, would
    break in a mount of ``view`` alone. Links shared under several names stay shared where the new target is the same.
    """
    made: dict[tuple[Symlink, bytes], Symlink] = {}
    pending: list[tuple[Directory, tuple[bytes, ...]]] = [(view, ())]
    while pending:
        directory, below = pending.pop()
        for name, child in directory.children.items():
            if isinstance(child, Directory):
                pending.append((child, (*below, name)))
            elif isinstance(child, Symlink):
                target = _target(walker, view, names, below, child.target)
                if target is not None:
                    link = Symlink(target, child.uid, child.gid, child.mtime_ns)
                    directory.children[name] = made.setdefault((child, target), link)


def _target(walker: Walker, view: Directory, names: Sequence[bytes], below: Sequence[bytes], target: bytes) -> bytes | None:
    """The new target of a link in the directory ``below`` of the view; None when it stays."""
    if target.startswith(b"/"):
        outside = split(target)
    elif _climb(split(target)) > len(below):
        # The directories on the way are real ones, so going up from them can be done on the names alone.
        outside = clean(b"/".join([*names, *below, target]))
    else:
        return None
    place = walker.walk(outside, until=view)
    if place.directory is not view or _climb(place.missing):
        return None
    inside = b"/".join([b".."] * len(below) + place.missing) or b"."
    return inside if len(inside) < MAX_PATH else None


def _climb(parts: Sequence[bytes]) -> int:
    """How many levels above its start a path rises."""
    level = lowest = 0
    for part in parts:
        level += -1 if part == b".." else 1
        lowest = min(lowest, level)
    return -lowest
