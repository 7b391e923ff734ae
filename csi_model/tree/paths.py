"""Paths inside a tree: cleaned, split, and walked through symbolic links that can never leave the tree's root."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory, Symlink

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATH = 4096
MAX_NAME = 255
MAX_DEPTH = 128
_MAX_LINKS = 40  # as many as Linux follows in one look-up
_MAX_LINK_STEPS = 10_000_000


def clean(path: bytes) -> list[bytes]:
    """The components of a path, ``.`` and empty ones gone; ``..`` takes one off and never rises above the root.

    This is containerd's reading of an entry's name (filepath.Clean, then joined below the root).
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part and part != b".":
            parts.append(part)
    return parts


def split(path: bytes) -> list[bytes]:
    """The components of a symbolic link's target: ``.`` and empty ones gone, ``..`` kept."""
    return [part for part in path.split(b"/") if part and part != b"."]


def shown(path: bytes | Sequence[bytes]) -> str:
    """A path for people: quoted, and cut when long."""
    raw = path if isinstance(path, bytes) else b"/".join(path)
    text = raw.decode("utf-8", "replace")
    return repr(text if len(text) <= 160 else text[:157] + "…")


@dataclass(slots=True)
class Place:
    """How far a walk came: the directories from the root down, their names, and the components that were not walked.

    ``obstacle`` says why the walk stopped where something other than absence stopped it; ``missing`` is never empty then.
    """

    trail: list[Directory]
    names: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    obstacle: str = ""

    @property
    def directory(self) -> Directory:
        """The last directory that exists."""
        return self.trail[-1]


class Walker:
    """Walks paths from one root, as openat2 does with RESOLVE_IN_ROOT: absolute links and ``..`` start and end at the root."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._steps = 0

    def walk(self, parts: Sequence[bytes], until: Directory | None = None) -> Place:
        """Follow directories and links; stop early on reaching ``until``.

        Components below one that does not exist are taken as directories yet to be made.

        Raises:
            UnsupportedError: the links of this tree have cost more steps, over all walks, than any honest tree needs.
        """
        place = Place([self._root])
        todo = list(reversed(parts))
        links = 0
        while todo and place.directory is not until:
            name = todo.pop()
            if name == b"..":
                if place.missing:
                    place.missing.pop()
                elif place.names:
                    place.names.pop()
                    place.trail.pop()
                continue
            child = None if place.missing else place.directory.children.get(name)
            if child is None:
                place.missing.append(name)
            elif isinstance(child, Directory):
                place.trail.append(child)
                place.names.append(name)
            elif isinstance(child, Symlink):
                target = split(child.target)
                links += 1
                self._spend(len(target))
                if links > _MAX_LINKS:
                    place.missing.append(name)
                    place.obstacle = "goes through too many symbolic links"
                    break
                if child.target.startswith(b"/"):
                    place = Place([self._root])
                todo.extend(reversed(target))
            else:
                place.missing.append(name)
                place.obstacle = f"goes through the file {shown([*place.names, name])}"
                break
        place.missing.extend(reversed(todo))
        return place

    def _spend(self, steps: int) -> None:
        self._steps += 1 + steps
        if self._steps > _MAX_LINK_STEPS:
            msg = "the image's symbolic links take too long to follow; it looks built to exhaust its reader"
            raise UnsupportedError(msg)
