"""Selections: which part of an image's tree a view shows, and the tree cut down to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from csi_model.errors import InvalidRequestError, NotFoundError
from csi_model.tree.globs import compile_glob
from csi_model.tree.links import relink
from csi_model.tree.nodes import Directory
from csi_model.tree.paths import MAX_PATH, Walker, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PATTERNS = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """A subtree and globs; equal selections show equal views.

    ``path`` is the directory to show, relative to the image's root, "" for the root. The globs are matched against placed paths,
    which are relative to the image's root as well, whatever ``path`` is. A pattern that matches a directory stands for all that is
    below it; ``exclude`` wins over ``include``; no ``include`` includes everything.
    """

    path: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, *, path: str = "", include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Self:
        """Validate what a user gave; slashes around ``path`` do not matter, nor do the order and repetition of globs.

        Raises:
            InvalidRequestError: a path that climbs or is too long, a malformed glob, or too many.
        """
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
            msg = f"path {path[:160]!r} must name a directory inside the image, without '..'"
            raise InvalidRequestError(msg)
        return cls("/".join(parts), _patterns(include, "include"), _patterns(exclude, "exclude"))


def select(root: Directory, selection: Selection) -> Directory:
    """The directory that the selection shows; consumes ``root``, whose directories are cut down in place.

    Symbolic links that lead back into a subtree by way of its outside (absolute ones, or by ``..``) become relative.

    Raises:
        NotFoundError: ``path`` does not exist, or the globs leave nothing.
        InvalidRequestError: ``path`` is not a directory.
    """
    walker = Walker(root)
    place = walker.walk([part.encode("utf-8", "surrogateescape") for part in _components(selection.path)])
    if place.obstacle:
        msg = f"path {selection.path!r} is not a directory of the image: it {place.obstacle}"
        raise InvalidRequestError(msg)
    if place.missing:
        raise _missing(selection.path, place.names, place.directory)
    view = place.directory
    if view is not root:
        relink(walker, view, place.names)
    if selection.include or selection.exclude:
        parts = [_text(name) for name in place.names]
        if not _any(selection.exclude, parts):
            _keep(view, parts, selection, included=not selection.include or _any(selection.include, parts))
        else:
            view.children.clear()
        if not view.children:
            msg = f"include {list(selection.include)} and exclude {list(selection.exclude)} leave nothing of {_place(place.names)}"
            raise NotFoundError(msg)
    return view


def _keep(directory: Directory, parts: list[str], selection: Selection, *, included: bool) -> None:
    """Drop what is not selected below a directory at ``parts``; ``included`` when it or one above it matched."""
    for name, child in list(directory.children.items()):
        path = [*parts, _text(name)]
        inside = included or _any_whole(selection.include, path)
        if _any_whole(selection.exclude, path):
            keep = False
        elif isinstance(child, Directory):
            was_empty = not child.children
            _keep(child, path, selection, included=inside)
            # A directory that the selection emptied goes, unless an include asked for it by name.
            keep = bool(child.children) or (inside and (was_empty or bool(selection.include)))
        else:
            keep = inside
        if not keep:
            del directory.children[name]


def _missing(path: str, names: Sequence[bytes], directory: Directory) -> NotFoundError:
    some = ", ".join(shown(name) for name in sorted(directory.children)[:8])
    more = ", …" if len(directory.children) > 8 else ""
    return NotFoundError(f"path {path!r} does not exist in the image; {_place(names)} holds {some + more or 'nothing'}")


def _place(names: Sequence[bytes]) -> str:
    return f"the directory {shown(names)}" if names else "the image's root"


def _patterns(patterns: Iterable[str], what: str) -> tuple[str, ...]:
    unique = tuple(sorted(set(patterns)))
    if len(unique) > MAX_PATTERNS:
        msg = f"{what} has {len(unique)} patterns, above the limit of {MAX_PATTERNS}"
        raise InvalidRequestError(msg)
    for pattern in unique:
        compile_glob(pattern)
    return unique


def _any(patterns: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a pattern matches the path or a directory above it."""
    return any(_any_whole(patterns, parts[:depth]) for depth in range(1, len(parts) + 1))


def _any_whole(patterns: Sequence[str], parts: Sequence[str]) -> bool:
    return any(compile_glob(pattern).matches(parts) for pattern in patterns)


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
