"""Archives indexed from a stream and from a file, against Python's tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_model.errors import CorruptContentError, CsiModelError, UnsupportedError
from csi_model.tree import archive
from csi_model.tree.tar import Kind, Segment, TarEntry, TarIndexer, scan
from tests.tree.archives import END, block, content, extended, info, padded, record, scanned, streamed, tar_of

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.CHRTYPE: Kind.SPECIAL,
    tarfile.BLKTYPE: Kind.SPECIAL,
    tarfile.FIFOTYPE: Kind.SPECIAL,
}
_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150).filter(
    lambda name: name.strip("/") == name
)
_MEMBERS = st.builds(
    info,
    _NAMES,
    st.sampled_from(sorted(_KINDS)),
    size=st.integers(0, 1500),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(0, 8**12) | st.floats(0, 2e9, allow_nan=False).map(lambda t: round(t, 3)),
    linkname=_NAMES,
)


def _written(members: list[tarfile.TarInfo], form: int) -> bytes:
    for member in members:
        if not member.isreg():
            member.size = 0
        if form == tarfile.GNU_FORMAT:
            member.mtime = int(member.mtime)
    return tar_of(*members, form=form)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(_MEMBERS, max_size=6), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(members: list[tarfile.TarInfo], form: int, chunk: int) -> None:
    """Names, kinds, modes, owners, times, links, sizes and offsets agree with an independent reader, streamed or scanned."""
    data = _written(members, form)
    entries = scanned(data)
    assert streamed(data, chunk) == entries
    with tarfile.open(fileobj=io.BytesIO(data + END)) as reader:
        expected = reader.getmembers()
    assert len(entries) == len(expected)
    for entry, member in zip(entries, expected, strict=True):
        assert entry.kind is _KINDS[member.type]
        assert entry.name.decode().rstrip("/") == member.name
        assert (entry.mode, entry.uid, entry.gid) == (member.mode & 0o777, member.uid, member.gid)
        assert abs(entry.mtime_ns - member.mtime * 10**9) < 1000
        assert entry.size == member.size
        if entry.size:
            assert entry.segments == (Segment(member.size, member.offset_data),)
        if entry.kind in (Kind.SYMLINK, Kind.HARD_LINK):
            assert entry.link.decode() == member.linkname


def test_every_chunk_size_gives_the_same_entries() -> None:
    """The pieces of a stream may end anywhere: inside headers, extended headers, maps and padding."""
    data = (
        tar_of(info("n" * 180, size=700, mtime=1.5), info("d/", tarfile.DIRTYPE), info("l", tarfile.SYMTYPE, linkname="t" * 150))
        + extended(b"x", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9999"))
        + block(size=b"%011o\0" % 1024)
        + padded(b"1\n50\n512\n")
        + padded(b"s" * 512)
        + END
    )
    expected = scanned(data)
    assert len(expected) == 4
    for chunk in range(1, len(data) + 1, 7):
        assert streamed(data, chunk) == expected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what makes tar writers use their extensions."""
    root = tmp_path_factory.mktemp("model")
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_bytes(b"long")
    (root / "empty").touch()
    (root / "weights").write_bytes(random.Random(1).randbytes(100_000))
    (root / "setuid").write_bytes(b"x")
    (root / "setuid").chmod(0o4755)
    (root / "link").symlink_to("t" * 200)
    (root / "hard").hardlink_to(root / "weights")
    (root / "dätei").write_bytes("ümlaut".encode())
    os.mkfifo(root / "fifo")
    # More regions than an old GNU header (4) and one extension (21) hold.
    for name, regions in (("sparse", 60), ("few", 2)):
        with (root / name).open("wb") as out:
            for i in range(regions):
                out.seek(i * 65536 + 8192)
                out.write(random.Random(i).randbytes(4096))
            out.truncate(regions * 65536 + 777)
    with (root / "zeros").open("wb") as out:
        out.truncate(1 << 20)
    return root


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=gnu", "--sparse"],
        ["--format=oldgnu", "--sparse"],
        ["--format=posix"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_what_gnu_tar_writes_reads_back(model: Path, options: list[str]) -> None:
    """Every file of an archive by GNU tar, sparse ones in all four formats included, has the bytes, mode, time and links of the original."""
    data = subprocess.run(["tar", "-C", model, *options, "-cf", "-", "."], check=True, capture_output=True).stdout
    entries = scanned(data)
    assert streamed(data, 4096 + 1) == entries
    found = {}
    for entry in entries:
        path = model / entry.name.decode()
        found[path] = entry
        status = path.lstat()
        assert (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
        if entry.kind is Kind.FILE:
            assert content(data, entry) == path.read_bytes()
            assert entry.size == status.st_size
            assert entry.mode == status.st_mode & 0o777
        elif entry.kind is Kind.SYMLINK:
            assert entry.link == os.fsencode(path.readlink())
        elif entry.kind is Kind.HARD_LINK:
            assert (model / entry.link.decode()).samefile(path)
        fraction = status.st_mtime_ns if "--format=posix" in options else status.st_mtime_ns // 10**9 * 10**9
        assert entry.mtime_ns == fraction
    assert found.keys() == {model, *model.rglob("*")}
    if "--sparse" in options:
        sparse = found[model / "sparse"]
        assert sum(s.length for s in sparse.segments if s.offset is None) > sparse.size // 2
        assert found[model / "zeros"].segments == (Segment(1 << 20),)
        assert len(found[model / "sparse"].segments) >= 120


def test_ustar_by_gnu_tar(tmp_path: Path) -> None:
    """A ustar archive, whose long paths are split in prefix and name, reads back."""
    path = tmp_path / ("a" * 80) / ("b" * 80)
    path.parent.mkdir()
    path.write_bytes(b"x" * 513)
    data = subprocess.run(["tar", "-C", tmp_path, "--format=ustar", "-cf", "-", "."], check=True, capture_output=True).stdout
    (entry,) = (e for e in scanned(data) if e.kind is Kind.FILE)
    assert entry.name.decode() == f"./{'a' * 80}/{'b' * 80}"
    assert content(data, entry) == b"x" * 513


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
        END + block(),
        END + bytes(5000) + b"x",
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
        block(type=b"S") + END,
        b"PK\x03\x04" + bytes(1000),
        b"\x1f\x8b" + b"z" * 2000,
        b"{}",
    ],
    ids=range(22),
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    """Truncated data or headers, bytes behind the end, extended headers of nothing, absurd sizes and other formats are refused by both readers."""
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
    """A global extended header says nothing about any entry, whatever its size, as in containerd."""
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


def test_scan_reads_little_of_large_files() -> None:
    """Of an archive of large files a scan reads no more than a few kilobytes a file."""
    one = block(size=b"%011o\0" % (1 << 20)) + bytes(1 << 20)
    data = one * 20 + END
    read = 0

    def reader(offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return data[offset : offset + length]

    assert len(scan(reader, len(data))) == 20
    assert read <= 20 * 4096 + (1 << 16)


def test_a_short_read_is_a_truncated_archive() -> None:
    """A file that turns out shorter than it was said to be is refused."""
    data = block(size=b"00000000005\0") + padded(b"hello") + block(b"g")
    with pytest.raises(CorruptContentError):
        scan(lambda offset, length: data[:1100][offset : offset + length], len(data))


class _Untouched(bytes):
    """Bytes that nobody may look at."""

    def __getitem__(self, key: object) -> NoReturn:
        raise AssertionError(key)


def test_contents_are_passed_over() -> None:
    """A file's bytes are never looked at, however many there are."""
    indexer = TarIndexer()
    indexer.feed(block(size=b"%011o\0" % (8**11 - 512)))
    piece = _Untouched(1 << 22)
    for _ in range(2048 - 1):
        indexer.feed(piece)


def test_every_byte_is_read_once() -> None:
    """Of an archive of ten thousand small files no byte is asked for twice, but for the headers at the windows' ends."""
    data = b"".join(block(b"models/file%d" % i, size=b"%011o\0" % 700) + bytes(1024) for i in range(10_000)) + END
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    assert len(scan(read, len(data))) == 10_000
    assert sum(asked) < 1.1 * len(data)
