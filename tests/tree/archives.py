"""Small archives and layers for the tests of the tree, made by Python's tarfile or written down as entries."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from csi_model.oci.digest import Digest
from csi_model.tree.entries import Kind, TarEntry
from csi_model.tree.layers import TarLayer
from csi_model.tree.nodes import Directory, File, Node
from csi_model.tree.tar import TarIndexer, scan

if TYPE_CHECKING:
    from collections.abc import Iterable

LAYER = Digest.of(b"a layer")


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """A member for `tar_of`."""
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def tar_of(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive whose files hold the first letter of their name, over and over; it ends with its last entry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for member in members:
            content = member.name.encode("utf-8", "surrogateescape")[:1] * member.size
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
        end = archive.offset
    return out.getvalue()[:end]


def scanned(data: bytes) -> tuple[TarEntry, ...]:
    """What `scan` finds."""
    return scan(lambda offset, length: data[offset : offset + length], len(data))


def streamed(data: bytes, chunk: int) -> tuple[TarEntry, ...]:
    """What `TarIndexer` finds when fed so many bytes at a time from one buffer that is overwritten each time."""
    indexer = TarIndexer()
    buffer = bytearray(chunk)
    for at in range(0, len(data), chunk):
        piece = data[at : at + chunk]
        buffer[: len(piece)] = piece
        indexer.feed(memoryview(buffer)[: len(piece)])
    return indexer.finish()


def content(data: bytes, entry: TarEntry) -> bytes:
    """A file's bytes, read by its segments."""
    return b"".join(bytes(s.length) if s.offset is None else data[s.offset : s.offset + s.length] for s in entry.segments)


def block(name: bytes = b"f", **fields: bytes) -> bytes:
    """A raw header block of a file with a right checksum; fields are bytes as stored."""
    values = {
        "name": name,
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"00000000000\0",
        "mtime": b"00000000000\0",
        "sum": b" " * 8,
        "type": b"0",
        "link": b"",
        "magic": b"ustar\x0000",
        "rest": b"",
    } | fields
    widths = {
        "name": 100,
        "mode": 8,
        "uid": 8,
        "gid": 8,
        "size": 12,
        "mtime": 12,
        "sum": 8,
        "type": 1,
        "link": 100,
        "magic": 8,
        "rest": 247,
    }
    raw = b"".join(values[field].ljust(width, b"\0") for field, width in widths.items())
    assert len(raw) == 512
    if "sum" not in fields:
        raw = raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]
    return raw


def padded(data: bytes) -> bytes:
    """Data with its padding to whole blocks."""
    return data + bytes(-len(data) % 512)


def extended(kind: bytes, body: bytes) -> bytes:
    """An extended header and its body."""
    return block(b"meta", type=kind, size=b"%011o\0" % len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    """A PAX record with its length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


END = bytes(1024)


def a_file(name: str, size: int = 0, *, mode: int = 0o644) -> TarEntry:
    """A file's entry; its size tells it from others."""
    return TarEntry(Kind.FILE, name.encode(), mode, 0, 0, 0, size, 512)


def a_directory(name: str, *, mode: int = 0o755, mtime_ns: int = 0) -> TarEntry:
    """A directory's entry."""
    return TarEntry(Kind.DIRECTORY, name.encode(), mode, 0, 0, mtime_ns)


def a_link(name: str, target: str) -> TarEntry:
    """A symbolic link's entry."""
    return TarEntry(Kind.SYMLINK, name.encode(), 0o777, 0, 0, 0, link=target.encode())


def a_hard_link(name: str, target: str) -> TarEntry:
    """A hard link's entry."""
    return TarEntry(Kind.HARD_LINK, name.encode(), 0o777, 7, 7, 7, link=target.encode())


def a_device(name: str) -> TarEntry:
    """A device's entry."""
    return TarEntry(Kind.SPECIAL, name.encode(), 0o666, 0, 0, 0)


def image(*layers: Iterable[TarEntry]) -> list[TarLayer]:
    """Layers of an image, lowest first."""
    return [TarLayer(Digest.of(b"%d" % i), tuple(entries), whiteouts=True) for i, entries in enumerate(layers)]


def flat(root: Directory) -> dict[str, str]:
    """A tree as text: ``d755`` for directories, ``f3`` for files of three bytes, ``-> target`` for links."""
    found: dict[str, str] = {}

    def visit(directory: Directory, path: str) -> None:
        for name, child in directory.children.items():
            below = path + name.decode("utf-8", "surrogateescape")
            found[below] = _shown(child)
            if isinstance(child, Directory):
                visit(child, below + "/")

    visit(root, "")
    return found


def _shown(node: Node) -> str:
    if isinstance(node, Directory):
        return f"d{node.mode:o}"
    return f"f{node.size}" if isinstance(node, File) else "-> " + node.target.decode()
