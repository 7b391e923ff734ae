"""The reading of a tar archive, with the bytes brought by somebody else.

`Archive.read` is a generator: it yields which bytes it needs next (offset and length, always forward) and is sent them. It wants
headers and maps only, so whoever drives it passes over file contents. What is read the way Go's archive/tar reads it is so
because containerd's layers are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from csi_model.errors import CorruptContentError, UnsupportedError
from csi_model.tree import pax, sparse
from csi_model.tree.entries import Kind, Segment, TarEntry
from csi_model.tree.header import BLOCK, Header, parse_header, text
from csi_model.tree.paths import MAX_PATH, shown

if TYPE_CHECKING:
    from collections.abc import Generator

    Want = tuple[int, int]
    Reading = Generator[Want, bytes, tuple[TarEntry, ...]]

MAX_ENTRIES = 1_000_000
MAX_WEIGHT = 512 << 20
"""Bytes of memory that the entries of a layer may take, and those of all layers of an image: long names and maps cost a registry nothing."""
_MAX_HEADERS = 3 * MAX_ENTRIES  # a long name and a long link may precede each entry
_MAX_EXTENDED = 1 << 20  # Go's limit
_MAX_FILE = 1 << 46  # 64 TiB: more than any model, and far from every overflow
_MAX_ID = 2**32 - 1
_ZEROS = bytes(BLOCK)

_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.SPECIAL,
    b"4": Kind.SPECIAL,
    b"5": Kind.DIRECTORY,
    b"6": Kind.SPECIAL,
}
_LINKS: Final = frozenset((Kind.SYMLINK, Kind.HARD_LINK))


class Archive:
    """One archive being read. ``end`` is its length in bytes, set by the driver before its first short answer."""

    def __init__(self) -> None:
        self.end: int | None = None
        self.weight = 0
        """About how many bytes the entries take until now."""
        self._entries: list[TarEntry] = []
        self._header_at = 0
        self._headers = 0
        self._data_end = 0
        # What the extended headers have said about the entry to come.
        self._records: dict[bytes, bytes] = {}
        self._long: dict[bytes, bytes] = {}

    def read(self) -> Reading:
        """Read from the first byte to the last; an answer shorter than was wanted means that the archive ends there.

        Raises:
            CorruptContentError: not a tar, or a damaged or truncated one.
            UnsupportedError: an entry of a kind or size that is refused.
        """
        while True:
            block = yield self._header_at, BLOCK
            if len(block) < BLOCK or block == _ZEROS:
                yield from self._close(block)
                return tuple(self._entries)
            try:
                header = parse_header(block)
                if header.type in b"xLKg":
                    data = yield from self._extended(header)
                else:
                    data = yield from self._entry(header, block)
            except ValueError as error:
                raise self._malformed(str(error)) from error
            self._data_end = data
            self._header_at = -(-data // BLOCK) * BLOCK
            self._headers += 1
            if self._headers > _MAX_HEADERS or len(self._entries) > MAX_ENTRIES:
                msg = f"the layer has more than {MAX_ENTRIES} tar entries; pack its files into fewer, or as raw layers"
                raise UnsupportedError(msg)

    def _close(self, block: bytes) -> Generator[Want, bytes, None]:
        """Two blocks of zeros end an archive, whatever follows; like Go, take the end of the bytes for an end as well."""
        if self._records or self._long:
            msg = "the extended header before it describes no entry"
            raise self._malformed(msg)
        if len(block) == BLOCK:
            second = yield self._header_at + BLOCK, BLOCK
            if second.strip(b"\0"):
                msg = "a block of zeros is followed by other bytes instead of a second one"
                raise self._malformed(msg)
        elif block:
            msg = "the archive ends in the middle of a header"
            raise self._malformed(msg)
        elif self.end is not None and self.end < self._data_end:
            # The padding of the last file may be missing, its data may not.
            msg = f"the archive is truncated: {self._data_end - self.end} bytes of the last entry are missing"
            raise CorruptContentError(msg)

    def _extended(self, header: Header) -> Generator[Want, bytes, int]:
        """A header that describes the next entry (or, ``g``, all of them: ignored, as containerd does); returns where it ends."""
        at = self._header_at + BLOCK
        if header.size > _MAX_EXTENDED:
            msg = f"an extended header of {header.size} bytes is above the limit of {_MAX_EXTENDED}"
            raise ValueError(msg)
        if header.type == b"g":
            return at + header.size
        body = (yield from self._must(at, header.size)) if header.size else b""
        if header.type == b"x":
            self._records = pax.parse_records(body)
        else:
            self._long[header.type] = text(body)
        return at + header.size

    def _entry(self, header: Header, block: bytes) -> Generator[Want, bytes, int]:
        """A real entry; returns where its data ends."""
        records, long = self._records, self._long
        if records or long:
            self._records, self._long = {}, {}
            header = _described(header, records, long)
        kind = _KINDS.get(header.type)
        if kind is None:
            msg = f"{shown(header.name)} is a tar entry of type {shown(header.type)}, which a model has no use for"
            raise UnsupportedError(msg)
        if header.type == b"\0" and header.name.endswith(b"/"):
            kind = Kind.DIRECTORY
        data = self._header_at + BLOCK
        size = header.size if kind is Kind.FILE else 0  # the others have no data, whatever their size says
        end = data + size
        segments: tuple[Segment, ...] | None = None
        if header.type == b"S":
            size, segments, end = yield from self._old_sparse(header, block)
        elif records and kind is Kind.FILE:
            header, size, segments = yield from self._pax_sparse(header, records)
        entry = _finished(kind, header, records, size=size, offset=data, segments=segments)
        self._entries.append(entry)
        self.weight += entry.weight
        if self.weight > MAX_WEIGHT:
            msg = f"the names, links and sparse maps of the layer's tar entries take more than {MAX_WEIGHT >> 20} MiB; pack its files into fewer"
            raise UnsupportedError(msg)
        return end

    def _old_sparse(self, header: Header, block: bytes) -> Generator[Want, bytes, tuple[int, tuple[Segment, ...], int]]:
        """The size and segments of an entry of type ``S``, and where its data ends."""
        if not header.gnu:
            msg = "a sparse entry (type S) has no GNU header"
            raise ValueError(msg)
        data = self._header_at + BLOCK
        regions, size, more = sparse.old_header(block)
        while more:
            extension = yield from self._must(data, BLOCK)
            added, more = sparse.old_extension(extension)
            regions += added
            sparse.check_count(len(regions))
            data += BLOCK
        return size, sparse.lay_out(regions, size=size, data=data, stored=header.size), data + header.size

    def _pax_sparse(
        self, header: Header, records: dict[bytes, bytes]
    ) -> Generator[Want, bytes, tuple[Header, int, tuple[Segment, ...] | None]]:
        """The header, size and segments of a file whose records may say that it is sparse; None when they do not."""
        data = self._header_at + BLOCK
        end = data + header.size
        version = (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            regions, data = yield from self._line_map(data, end)
        elif pax.SPARSE_MAP in records:
            regions = sparse.comma_map(records[pax.SPARSE_MAP])
        elif version[0] not in (None, b"0"):
            msg = f"{shown(header.name)} is a sparse file of an unknown format"
            raise UnsupportedError(msg)
        else:
            return header, header.size, None
        true_size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if true_size is None:
            msg = "a sparse file does not say how large it is"
            raise ValueError(msg)
        size = pax.decimal(true_size, "sparse size")
        # The header's own name is a stand-in for readers that do not know sparse files.
        header = header._replace(name=records.get(b"GNU.sparse.name", header.name))
        return header, size, sparse.lay_out(regions, size=size, data=data, stored=end - data)

    def _line_map(self, at: int, end: int) -> Generator[Want, bytes, tuple[list[sparse.Region], int]]:
        """The map of sparse format 1.0 and where the data after it begins."""
        lines = sparse.LineMap()
        while not lines.complete:
            if at + BLOCK > end:
                msg = "its sparse map is longer than its data"
                raise ValueError(msg)
            lines.feed((yield from self._must(at, BLOCK)))
            at += BLOCK
        return lines.regions, at

    def _must(self, at: int, length: int) -> Generator[Want, bytes, bytes]:
        answer = yield at, length
        if len(answer) < length:
            msg = "the archive ends in the middle of a header"
            raise ValueError(msg)
        return answer

    def _malformed(self, reason: str) -> CorruptContentError:
        return CorruptContentError(f"not a valid tar archive: at byte {self._header_at}, {reason}")


def _described(header: Header, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> Header:
    """The header with what its extended headers say in place of its fields; GNU's long names win over PAX's, as in Go."""
    changes: dict[str, bytes | int] = {}
    if records:
        for key, name in ((b"path", "name"), (b"linkpath", "link")):
            if key in records:
                changes[name] = records[key]
        for key in (b"size", b"uid", b"gid"):
            if key in records:
                changes[key.decode()] = pax.decimal(records[key], key.decode())
    if long.get(b"L"):
        changes["name"] = long[b"L"]
    if long.get(b"K"):
        changes["link"] = long[b"K"]
    return header._replace(**changes)  # type: ignore[arg-type]  # keys and types agree by construction


def _finished(
    kind: Kind, header: Header, records: dict[bytes, bytes], *, size: int, offset: int, segments: tuple[Segment, ...] | None
) -> TarEntry:
    name, link = header.name, header.link
    if len(name) > MAX_PATH or len(link) > MAX_PATH:
        msg = f"{shown(name)} has a name or link longer than {MAX_PATH} bytes"
        raise UnsupportedError(msg)
    if not (0 <= header.uid <= _MAX_ID and 0 <= header.gid <= _MAX_ID):
        msg = f"{shown(name)} has an owner outside 0…{_MAX_ID} ({header.uid}:{header.gid})"
        raise UnsupportedError(msg)
    if size > _MAX_FILE:
        msg = f"{shown(name)} claims {size} bytes, above the limit of {_MAX_FILE}"
        raise UnsupportedError(msg)
    mtime = records.get(b"mtime") if records else None
    return TarEntry(
        kind,
        name,
        header.mode & 0o777,
        header.uid,
        header.gid,
        pax.mtime_ns(mtime) if mtime else pax.clamp_seconds(header.mtime),
        size,
        offset if kind is Kind.FILE else 0,
        link if kind in _LINKS else b"",
        segments,
    )
