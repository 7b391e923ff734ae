"""Archives that are damaged, hostile or merely odd: what is refused, as what, and what is read all the same."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_model.errors import CorruptContentError, CsiModelError, UnsupportedError
from csi_model.tree import archive
from csi_model.tree.tar import Kind, TarEntry, TarIndexer, scan
from tests.tree.archives import END, block, content, extended, info, padded, record, scanned, streamed, tar_of

if TYPE_CHECKING:
    from pathlib import Path


def _outcome(data: bytes) -> tuple[TarEntry, ...] | type[CsiModelError]:
    """What both readers say of an archive; they must agree."""
    outcomes: list[tuple[TarEntry, ...] | type[CsiModelError]] = []
    for read in (scanned, lambda d: streamed(d, 333)):
        try:
            outcomes.append(read(data))
        except CsiModelError as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def _names(data: bytes) -> list[bytes]:
    outcome = _outcome(data)
    assert isinstance(outcome, tuple)
    return [entry.name for entry in outcome]


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1025), bytes(512 + 100)])
def test_an_archive_ends_at_zeros_or_at_its_last_byte(end: bytes) -> None:
    """Like containerd, take no end mark, half a mark and any zeros behind it for an end."""
    assert _names(block(size=b"00000000005\0") + padded(b"hello") + end) == [b"f"]


def test_the_padding_of_the_last_file_may_be_missing() -> None:
    """A last file whose bytes are all there but whose padding is not is complete."""
    assert _names(block(size=b"00000000005\0") + b"hello") == [b"f"]


@pytest.mark.parametrize("after", [block(), b"x", bytes(5000) + b"x", block()[:100], b"junk" * 50_000])
def test_nothing_behind_the_end_is_read(after: bytes) -> None:
    """Whatever follows two blocks of zeros, another archive included, is passed over, as Go and GNU tar do."""
    assert _names(block(b"a") + END + after) == [b"a"]


def test_the_end_is_read_no_further_than_its_mark() -> None:
    """A scan asks for nothing behind the window that holds the end mark, however much follows it."""
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append(offset + length)
        return (block(b"a") + END)[offset : offset + length].ljust(length, b"x")

    assert [entry.name for entry in scan(read, 1 << 40)] == [b"a"]
    assert max(asked) <= 1 << 17


@pytest.mark.parametrize("kind", [b"0", b"g", b"x", b"S"])
def test_no_size_leads_past_what_the_kernel_reads(tmp_path: Path, kind: bytes) -> None:
    """A header that claims 8 EiB is refused and never an offset for pread, which takes none so large."""
    path = tmp_path / "layer"
    path.write_bytes(block(type=kind, magic=b"ustar  \0", size=b"\x80\0\0\0\x7f" + b"\xff" * 7) + END)
    with path.open("rb") as file, pytest.raises((CorruptContentError, UnsupportedError)):
        scan(lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size)


def test_no_bytes_are_an_empty_archive() -> None:
    """A layer of no bytes, or of an end mark only, places nothing."""
    assert _names(b"") == _names(END) == []


@pytest.mark.parametrize(
    "data",
    [
        block(size=b"00000000005\0") + b"hell",
        block(size=b"00000000005\0"),
        block()[:511],
        block() + b"x",
        bytes(512) + block(),
        block() + bytes(512) + b"x",
        block() + bytes(1023) + b"x",
        extended(b"x", record(b"path", b"p")),
        extended(b"x", record(b"path", b"p")) + END,
        extended(b"L", b"long") + END,
        extended(b"x", record(b"path", b"p"))[:600],
        extended(b"x", b"nonsense") + block(),
        extended(b"x", record(b"uid", b"-1")) + block(),
        extended(b"x", record(b"size", b"-1")) + block(),
        extended(b"x", record(b"mtime", b"soon")) + block(),
        block(b"m", type=b"x", size=b"%011o\0" % (1 << 21)) + bytes(1 << 21),
        block(size=b"\xff" * 12) + END,
        block(size=b"\x80" + b"\x7f" * 11),
        block(b"m", type=b"g", size=b"\x80\0\0\0\x7f" + b"\xff" * 7),
        extended(b"g", bytes((1 << 20) + 1)) + block(),
        block(type=b"S") + END,
        b"PK\x03\x04" + bytes(1000),
        b"\x1f\x8b" + b"z" * 2000,
        b"{}",
    ],
    ids=range(24),
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    """Truncated data or headers, half an end mark with bytes behind it, extended headers of nothing, absurd sizes and other formats are refused by both readers."""
    assert _outcome(data) is CorruptContentError


@pytest.mark.parametrize("kind", [b"V", b"M", b"D", b"N", b"X", b"A", b"\xff"])
def test_entries_of_other_types_are_refused_by_name(kind: bytes) -> None:
    """A volume label, a multi-volume part, a directory dump and unknown types are refused, naming the entry."""
    data = block(b"strange", type=kind) + END
    assert _outcome(data) is UnsupportedError
    with pytest.raises(UnsupportedError, match="strange"):
        scanned(data)


def test_files_beyond_any_filesystem_are_refused() -> None:
    """An entry that claims nearly 8 EiB is refused when its header is read, not when the stream turns out shorter."""
    indexer = TarIndexer()
    with pytest.raises(UnsupportedError, match="claims"):
        indexer.feed(block(size=b"\x80\0\0\0\x7f" + b"\xff" * 7))


def test_owners_beyond_32_bits_are_refused() -> None:
    """An owner that no filesystem can store, or a negative one, is refused."""
    assert _outcome(extended(b"x", record(b"uid", b"4294967296")) + block() + END) is UnsupportedError
    assert _outcome(block(gid=b"\xff" * 8) + END) is UnsupportedError
    assert _names(extended(b"x", record(b"gid", b"4294967295")) + block() + END) == [b"f"]


def test_names_beyond_any_path_are_refused() -> None:
    """A name or link of more than 4096 bytes is refused while it is read."""
    assert _outcome(extended(b"L", b"n" * 4097) + block() + END) is UnsupportedError
    assert _outcome(extended(b"x", record(b"linkpath", b"n" * 4097)) + block(type=b"2") + END) is UnsupportedError


def test_entries_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than the limit, or more headers than they could need, are refused."""
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    monkeypatch.setattr(archive, "_MAX_HEADERS", 30)
    assert len(_names(block() * 10 + END)) == 10
    assert _outcome(block() * 11 + END) is UnsupportedError
    assert _outcome(block(type=b"g") * 31 + END) is UnsupportedError


def test_global_headers_are_ignored() -> None:
    """A global extended header says nothing about any entry, as in containerd."""
    data = extended(b"g", record(b"path", b"other") + b"#" * 2000) + block() + END
    assert _names(data) == [b"f"]


def test_go_order_of_long_names() -> None:
    """GNU's long name wins over PAX's, which wins over the header's; an empty long name says nothing."""
    both = extended(b"x", record(b"path", b"pax")) + extended(b"L", b"gnu\0") + block()
    assert _names(both + block() + END) == [b"gnu", b"f"]
    assert _names(extended(b"L", b"\0") + block() + END) == [b"f"]


def test_an_old_directory_ends_in_a_slash() -> None:
    """A v7 entry without a type is a directory when its name ends in a slash, and has no data then."""
    outcome = _outcome(block(b"d/", type=b"\0", size=b"00000000777\0") + block(b"e", type=b"\0") + END)
    assert isinstance(outcome, tuple)
    assert [(e.name, e.kind) for e in outcome] == [(b"d/", Kind.DIRECTORY), (b"e", Kind.FILE)]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6"])
def test_what_is_no_file_has_no_data(kind: bytes) -> None:
    """Links, directories and devices have no data though their size says so, as in Go."""
    assert _names(block(type=kind, link=b"t", size=b"00000001000\0") + block(b"next") + END) == [b"f", b"next"]


def _pax_sparse(body: bytes, stored: bytes, *, size: int | None = None) -> bytes:
    return extended(b"x", body) + block(size=b"%011o\0" % (len(stored) if size is None else size)) + padded(stored) + END


_ONE = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (_pax_sparse(_ONE, padded(b"0\n")), CorruptContentError),
        (_pax_sparse(_ONE + record(b"GNU.sparse.realsize", b"10"), b"0\n"), CorruptContentError),
        (_pax_sparse(_ONE + record(b"GNU.sparse.realsize", b"10"), padded(b"1\n0\n11\n") + b"x" * 11), CorruptContentError),
        (_pax_sparse(_ONE + record(b"GNU.sparse.realsize", b"10"), padded(b"1\n0\n5\n") + b"x" * 6), CorruptContentError),
        (extended(b"x", _ONE) + block(size=b"%011o\0" % 1024), CorruptContentError),
        (_pax_sparse(record(b"GNU.sparse.map", b"0,1"), b"x"), CorruptContentError),
        (_pax_sparse(record(b"GNU.sparse.major", b"2") + record(b"GNU.sparse.minor", b"0"), b"x"), UnsupportedError),
        # 8 EiB in one entry: beyond any filesystem.
        (_pax_sparse(record(b"GNU.sparse.size", b"9223372036854775807") + record(b"GNU.sparse.map", b"0,1"), b"x"), UnsupportedError),
        (_pax_sparse(record(b"GNU.sparse.size", b"9223372036854775808") + record(b"GNU.sparse.map", b"0,1"), b"x"), CorruptContentError),
    ],
    ids=range(9),
)
def test_lying_sparse_files_are_refused(data: bytes, expected: type[CsiModelError]) -> None:
    """A sparse file without a size, with a map that does not fit its data, of an unknown format or of 8 EiB is refused."""
    assert _outcome(data) is expected


def test_a_sparse_file_has_its_true_name_and_size() -> None:
    """GNU.sparse.name and realsize replace the stand-ins in the header."""
    body = _ONE + record(b"GNU.sparse.realsize", b"100") + record(b"GNU.sparse.name", b"real") + record(b"path", b"GNUSparseFile.1/real")
    data = _pax_sparse(body, padded(b"1\n10\n3\n") + b"abc")
    (entry,) = scanned(data)
    assert (entry.name, entry.size) == (b"real", 100)
    assert content(data, entry) == bytes(10) + b"abc" + bytes(87)


def test_endless_sparse_extensions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extension blocks that go on for ever stop at the limit of regions."""
    monkeypatch.setattr("csi_model.tree.sparse.MAX_SEGMENTS", 100)
    regions = b"".join(b"%011o\0%011o\0" % (i * 1000, 0) for i in range(21))
    head = block(type=b"S", magic=b"ustar  \0", rest=bytes(217 + 0)[:217] + b"\1")
    assert _outcome(head + (regions + b"\1" + bytes(7)) * 50) is CorruptContentError


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_escape_as_foreign_errors(data: st.DataObject) -> None:
    """Whatever is overwritten in an archive, both readers agree on the entries or on one of our errors."""
    raw = bytearray(
        tar_of(info("a" * 120, size=10), info("s", tarfile.SYMTYPE, linkname="x"), form=tarfile.GNU_FORMAT)
        + extended(b"x", _ONE + record(b"GNU.sparse.realsize", b"100"))
        + block(size=b"%011o\0" % 515)
        + padded(b"1\n10\n3\n")
        + padded(b"abc")
        + END
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
        header = at // 512 * 512
        if data.draw(st.booleans()):  # past the checksum, into the fields
            raw[header + 148 : header + 156] = b" " * 8
            raw[header + 148 : header + 156] = b"%06o\0 " % sum(raw[header : header + 512])
    _outcome(bytes(raw))


def test_a_failed_indexer_stays_failed() -> None:
    """After an error, feeding on and finishing raise it again instead of making up entries."""
    indexer = TarIndexer()
    with pytest.raises(CorruptContentError):
        indexer.feed(b"x" * 512)
    with pytest.raises(CorruptContentError):
        indexer.feed(b"x" * 512)
    with pytest.raises(CorruptContentError):
        indexer.finish()
