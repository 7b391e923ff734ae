from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import (
    CorruptContentError,
    CsiModelError,
    InvalidRequestError,
    NotFoundError,
    RangesIgnoredError,
    UnavailableError,
    UnsupportedError,
)
from csi_model.oci.descriptor import Descriptor
from csi_model.registry import stream
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.registry import FakeRegistry
    from tests.registry.conftest import Kit

    Read = Callable[..., bytes]

DATA = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(20_000))


@pytest.mark.parametrize("piece", [1, 7000, 8192, 8193, 100_000, 1 << 20])
def test_every_byte_once_and_in_order(kit: Kit, registry: FakeRegistry, read: Read, piece: int) -> None:
    """A blob comes whole whatever the size of the buffer, small ones and those that bypass http.client's own included."""
    data = DATA[:50_000] if piece == 1 else DATA
    blob = registry.add_blob(data)
    assert read(kit.source(registry), blob, piece) == data


def test_buffers_are_filled(kit: Kit, registry: FakeRegistry) -> None:
    """One call fills its buffer even when the server sends small pieces, for the pipeline hashes and writes whole buffers."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(drip=(20_000, 0.005)))
    reader = kit.source(registry).open(blob)
    counts = [reader.readinto(memoryview(bytearray(300_000))) for _ in range(4)]
    reader.close()
    assert counts == [300_000, 300_000, 40_000, 0]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(times=3, reset_after=150_000),
        Fault(times=3, close_after=150_000),
        Fault(times=1, stall_after=150_000),
        Fault(times=3, close_after=150_000, chunked=True),
        Fault(times=2, close_after=150_000, ignore_range=True),
        Fault(chunked=True),
        Fault(ignore_range=True),
        Fault(times=1, status=503),
        Fault(times=1, drip=(1, 0.2)),
    ],
    ids=lambda fault: str(fault).replace("None", "-")[:60],
)
def test_faults_that_are_survived(kit: Kit, registry: FakeRegistry, read: Read, fault: Fault) -> None:
    """Resets, early ends, stalls, drips, chunked bodies and servers without Range cost time, never a byte."""
    blob = registry.add_blob(DATA)
    registry.add_fault(fault)
    assert read(kit.source(registry), blob) == DATA
    assert read(kit.source(registry), blob, offset=100_001, length=200_000) == DATA[100_001:300_001]


def test_resuming_asks_for_what_is_missing(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """After a reset only what did not arrive is fetched again, from the registry's own URL."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(times=1, close_after=400_000))
    assert read(kit.source(registry), blob, 1 << 20) == DATA
    first, second = registry.requests("/blobs/")
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes=400000-{len(DATA) - 1}"
    assert registry.body_bytes == len(DATA)


@pytest.mark.parametrize("chunked", [False, True])
def test_progress_renews_the_budget(kit: Kit, registry: FakeRegistry, read: Read, *, chunked: bool) -> None:
    """More breaks than the budget has retries are survived when each attempt brings a MiB, and not when none brings more than a little."""
    data = DATA * 16
    blob = registry.add_blob(data)
    fault = registry.add_fault(Fault(close_after=1_200_000, chunked=chunked))
    assert read(kit.source(registry), blob, 1 << 20) == data
    assert len(registry.seen) > 8
    for little in (0, 60_000):
        registry.seen.clear()
        fault.close_after = little
        with pytest.raises(UnavailableError, match=r"middle of an answer|broke off"):
            read(kit.source(registry), blob)
        assert len(registry.seen) == 4


def test_a_server_that_keeps_to_no_pace_is_given_up(kit: Kit, registry: FakeRegistry, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come just often enough not to be a stall still have to come at some rate, and the budget of retries is not renewed by them."""
    monkeypatch.setattr(stream, "_STRETCH_PATIENCE", 1)  # so that a server held up for a moment by a busy machine is not silent
    blob = registry.add_blob(DATA * 10)
    registry.add_fault(Fault(drip=(10_000, 0.04)))
    with pytest.raises(UnavailableError, match=r"sent no more than \d+ KiB in"):
        read(kit.source(registry, stall_timeout=2, retries=1), blob, 4 << 20)
    assert len(registry.seen) == 2


def test_breaks_at_one_place_of_a_server_without_range_end(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """Reading the same bytes again is no progress: a server that ignores Range and always breaks off at one place is given up."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(close_after=300_000, ignore_range=True))
    with pytest.raises(UnavailableError):
        read(kit.source(registry), blob)
    assert len(registry.seen) == 4


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (Fault(extra=b"!"), CorruptContentError, "more of blob"),
        (Fault(body=DATA + b"!"), CorruptContentError, "announced 640001 bytes"),
        (Fault(body=DATA[:-1]), CorruptContentError, "announced 639999 bytes"),
        (Fault(headers={"Content-Encoding": "gzip"}), UnsupportedError, "Content-Encoding"),
        (Fault(stall_after=100), UnavailableError, "next to nothing"),
        (Fault(drip=(1, 0.01)), UnavailableError, "next to nothing"),
        (Fault(status=404), NotFoundError, "does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_that_are_refused(
    kit: Kit, registry: FakeRegistry, read: Read, *, fault: Fault, error: type[CsiModelError], text: str
) -> None:
    """A body of the wrong length or encoding is refused, and silence or a drip of single bytes is given up in the end."""
    blob = registry.add_blob(DATA)
    registry.add_fault(fault)
    with pytest.raises(error, match=text):
        read(kit.source(registry, retries=0 if error is UnavailableError else 3), blob)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-99/640000",
        "bytes 99-198/640000",
        "bytes 100-99/640000",
        "bytes 100-200/640000",
        "bytes 100-199/700000",
        "bytes */640000",
        "items 100-199/640000",
        "",
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_wrong_content_range_is_refused(kit: Kit, registry: FakeRegistry, read: Read, *, content_range: str, chunked: bool) -> None:
    """A 206 that brings another part than was asked for, or tells another size, is refused at once."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(content_range=content_range or " ", chunked=chunked))
    with pytest.raises(CorruptContentError):
        read(kit.source(registry), blob, offset=100, length=100)
    assert len(registry.seen) == 1


def test_shorter_part_than_asked_for(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """A server may serve a part in parts: the rest is asked for."""
    blob = registry.add_blob(DATA)
    fault = Fault(times=1, content_range="bytes 100-149/640000", headers={"Content-Length": "50"}, close_after=50)
    registry.add_fault(fault)
    assert read(kit.source(registry), blob, offset=100, length=100) == DATA[100:200]
    assert registry.seen[-1].headers["range"] == "bytes=150-199"


def test_range_beyond_the_blob(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """A 416 means that the blob is shorter than its descriptor says."""
    true = registry.add_blob(DATA)
    blob = Descriptor(true.media_type, true.digest, true.size + 10)
    with pytest.raises(CorruptContentError, match="ends before"):
        read(kit.source(registry), blob, offset=len(DATA))


def test_ranges_are_learnt(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """The source tells whether the server serves parts, once it knows."""
    blob = registry.add_blob(DATA)
    source = kit.source(registry)
    assert source.ranges is None
    read(source, blob)
    assert source.ranges is None
    read(source, blob, offset=10, length=10)
    assert source.ranges is True
    registry.add_fault(Fault(ignore_range=True))
    read(source, blob, offset=10, length=10)
    assert source.ranges is False


def test_a_part_is_not_read_from_the_beginning(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """A server that ignores Range is found out by who wants a part, at once and without a retry; who wants all that is left skips to it."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(ignore_range=True))
    source = kit.source(registry)
    for length in (10, len(DATA) - 400_000):
        with pytest.raises(RangesIgnoredError, match="where bytes 400000-"):
            read(source, blob, offset=400_000, length=length)
    assert len(registry.seen) == 2
    assert read(source, blob, offset=400_000) == DATA[400_000:]


def test_empty_blob_and_empty_part(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """Nothing is asked for when there is nothing to read: some registries refuse to store the empty blob."""
    source = kit.source(registry)
    assert read(source, registry.add_blob(b"")) == b""
    assert read(source, registry.add_blob(DATA), offset=5, length=0) == b""
    assert registry.seen == []


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, len(DATA) + 1), (len(DATA) + 1, None), (5, -1)])
def test_parts_outside_the_blob(kit: Kit, registry: FakeRegistry, offset: int, length: int | None) -> None:
    """A part has to be inside its blob."""
    with pytest.raises(InvalidRequestError):
        kit.source(registry).open(registry.add_blob(DATA), offset=offset, length=length)


def test_one_connection_serves_many_blobs(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """A connection is used again after a body that was read to its end, chunked ones included."""
    source = kit.source(registry)
    registry.add_fault(Fault(times=2, chunked=True))
    for number in range(5):
        data = DATA[: 1000 * number + 1]
        assert read(source, registry.add_blob(data)) == data
    assert registry.connections == 1


def test_kept_connection_that_the_server_closed(kit: Kit, registry: FakeRegistry, read: Read) -> None:
    """A kept connection that is closed just as it is used again is replaced without counting as a failure."""
    source = kit.source(registry, retries=0)
    assert read(source, registry.add_blob(b"one")) == b"one"
    registry.add_fault(Fault(times=1, hang_up=True))
    assert read(source, registry.add_blob(b"two")) == b"two"


@pytest.mark.parametrize(
    "fault", [Fault(stall_after=0), Fault(stall_after=100_000), Fault(delay=3), Fault(status=503, headers={"Retry-After": "9"})]
)
def test_close_from_another_thread(kit: Kit, registry: FakeRegistry, fault: Fault) -> None:
    """A reader that waits for headers, for bytes or for its next attempt ends at once with Unavailable when it is closed."""
    blob = registry.add_blob(DATA)
    registry.add_fault(fault)
    reader = kit.source(registry, stall_timeout=30, retry_after_limit=30).open(blob)
    timer = threading.Timer(0.15, reader.close)
    timer.start()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="stopped"):
        reader.readinto(memoryview(bytearray(len(DATA))))
    assert time.monotonic() - started < 2
    timer.join()
    reader.close()
    with pytest.raises(UnavailableError, match="stopped"):
        reader.wait()


def test_close_just_before_a_read_returns(kit: Kit, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes last, the closing thread or the reading one, lets go of the connection."""
    reader = kit.source(registry).open(registry.add_blob(DATA * 3))
    monkeypatch.setattr(reader._retry, "progress", reader.close)
    with pytest.raises(UnavailableError, match="stopped"):
        reader.readinto(memoryview(bytearray(2 * len(DATA))))
    assert reader._response is None


def test_wait_returns_when_a_byte_is_there(kit: Kit, registry: FakeRegistry) -> None:
    """``wait`` blocks while nothing has come, returns with the first byte, and at once at the end."""
    blob = registry.add_blob(DATA[:1000])
    registry.add_fault(Fault(drip=(500, 0.5)))
    reader = kit.source(registry, stall_timeout=5).open(blob)
    reader.wait()
    buffer = memoryview(bytearray(1000))
    assert reader.readinto(buffer[:500]) == 500
    started = time.monotonic()
    reader.wait()
    assert 0.05 < time.monotonic() - started < 2
    assert reader.readinto(buffer[500:]) == 500
    reader.wait()
    assert buffer == DATA[:1000]
    reader.close()


def test_wait_survives_a_break(kit: Kit, registry: FakeRegistry) -> None:
    """``wait`` opens the blob again when the connection is lost, so that after it a byte can be read."""
    blob = registry.add_blob(DATA)
    registry.add_fault(Fault(times=1, close_after=0))
    reader = kit.source(registry).open(blob)
    reader.wait()
    assert len(registry.seen) == 2
    reader.close()
